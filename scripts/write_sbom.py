"""Write what the release is made of and depends on: bundle/sbom.cdx.json (CycloneDX 1.6) and bundle/docs/third_party_licenses.md.

python scripts/write_sbom.py

Run it in the environment of `make venv` after constraints.txt, the dependencies, the weights or the version changed. Licences are
those that the installed packages declare. No date, no path: the same environment gives the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageMetadata, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from hftn_sr._version import __version__
from hftn_sr.errors import Fault
from hftn_sr.networks.weights import shipped_models
from hftn_sr.volumes.files import sha256_of, write_files

ROOT = Path(__file__).absolute().parents[1]
BUNDLE = ROOT / "bundle"
SBOM, TABLE = BUNDLE / "sbom.cdx.json", BUNDLE / "docs" / "third_party_licenses.md"
VIEWER = BUNDLE / "hftn_sr" / "report" / "assets" / "niivue.umd.js"
NEEDED = {
    (): "always",
    ("train",): "training",
    ("export",): "ONNX",
    ("cluster",): "Dask clusters",
    ("docs", "notebook", "dev"): "development",
}  # extras and their words
# Names of licences that packages declare without SPDX, by how their text begins.
SPDX = {
    "apache": "Apache-2.0",
    "mit license": "MIT",
    "mit": "MIT",
    "bsd 3-clause": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "isc": "ISC",
    "mozilla public license 2.0": "MPL-2.0",
    "python software foundation": "PSF-2.0",
}
HEAD = """# Licences of what hftn-sr depends on

Written by `python scripts/write_sbom.py` of the repository, as the packages declare them. None of them is part of the release but NiiVue
(BSD-2-Clause, `hftn_sr/report/assets`), the viewer of the QC page. The data that the weights were trained on have
[terms of their own](data_license.txt). The same as CycloneDX, with what depends on what: `sbom.cdx.json` at the root of the bundle.

| package | version | licence | needed for |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Package:
    """An installed package.

    Args:
        name: canonical.
        version: without the local part that names a build.
        licence: SPDX expression, or the words that it declares.
        needed: a value of NEEDED, the first that applies.
        depends: names of the packages that it needs.
    """

    name: str
    version: str
    licence: str
    needed: str
    depends: tuple[str, ...]

    @property
    def reference(self) -> str:
        """Package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def packages() -> list[Package]:
    """All packages that hftn-sr needs here, by name."""
    asked: dict[str, set[str]] = {}  # extras of each, by all that need it: whoever is met first must not decide
    needed: dict[str, str] = {}
    for extras, words in NEEDED.items():
        waiting = list(_requirements("hftn-sr", extras))
        while waiting:
            name, of = waiting.pop()
            if name == "hftn-sr" or (name in asked and asked[name].issuperset(of)):
                continue
            asked[name] = asked.get(name, set()).union(of)
            needed.setdefault(name, words)
            waiting += _requirements(name, asked[name])
    return [_package(name, asked[name], needed[name]) for name in sorted(asked)]


def _package(name: str, extras: Iterable[str], needed: str) -> Package:
    metadata = distribution(name).metadata
    depends = tuple(sorted({each for each, _ in _requirements(name, extras)}))
    return Package(name, Version(metadata["Version"]).public, declared_licence(metadata), needed, depends)


def _requirements(name: str, extras: Iterable[str]) -> set[tuple[str, tuple[str, ...]]]:
    """Packages that `name` with these extras requires here, each with the extras that are asked of it."""
    chosen = [{"extra": extra} for extra in extras] or [{"extra": ""}]
    try:
        required = map(Requirement, distribution(name).requires or [])
    except PackageNotFoundError:
        raise Fault(name, "is not installed here, so that its licence is not known", "make venv, and run this there") from None
    wanted = [each for each in required if each.marker is None or any(each.marker.evaluate(extra) for extra in chosen)]
    return {(str(canonicalize_name(each.name)), tuple(sorted(each.extras))) for each in wanted}


def declared_licence(metadata: PackageMetadata) -> str:
    """The SPDX expression that a package declares, or the one that its words mean, or these words."""
    if expression := metadata.get_all("License-Expression"):
        return str(expression[0])
    texts = [str(each) for each in metadata.get_all("License") or []]
    words = [line.strip() for text in texts for line in text.splitlines() if line.strip()][:1]
    words += [each.rpartition("::")[2].strip() for each in metadata.get_all("Classifier") or [] if each.startswith("License ::")]
    for word in words:
        if known := next((spdx for begin, spdx in SPDX.items() if word.lower().startswith(begin)), None):
            return known
    return min((word for word in words if word != "UNKNOWN"), key=len, default="not declared")


def sbom(found: list[Package]) -> dict[str, Any]:
    """The bill of materials: the bundle, what is in it that others made or that is no text, and what it needs when it runs."""
    installed = [package for package in found if package.needed != "development"]
    names = {package.name: package.reference for package in installed}
    own = f"pkg:pypi/hftn-sr@{__version__}"
    components = [_weights(name, sha256) for name, sha256 in sorted(shipped_models().items())]
    components.append(
        {
            "type": "library",
            "bom-ref": "pkg:npm/%40niivue/niivue@0.69.0",
            "name": "@niivue/niivue",
            "version": "0.69.0",
            "purl": "pkg:npm/%40niivue/niivue@0.69.0",
            "hashes": [_sha256(sha256_of(VIEWER))],
            **_licences("BSD-2-Clause"),
        }
    )
    inside = [str(each["bom-ref"]) for each in components]
    components += [
        {
            "type": "library", "bom-ref": each.reference, "name": each.name, "version": each.version, "purl": each.reference,
            "scope": "required" if each.needed == "always" else "optional", **_licences(each.licence),
        }
        for each in installed
    ]  # fmt: skip
    direct = [names[name] for name, _ in sorted(_requirements("hftn-sr", ()))]
    dependencies = [{"ref": own, "dependsOn": sorted({*inside, *direct})}]
    for each in installed:
        dependencies.append({"ref": each.reference, "dependsOn": sorted({names[name] for name in each.depends if name in names})})
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {
            "component": {
                "type": "application", "bom-ref": own, "name": "hftn-sr", "version": __version__, "purl": own, **_licences("Apache-2.0"),
            },
        },
        "components": components, "dependencies": dependencies,
    }  # fmt: skip


def _weights(name: str, sha256: str) -> dict[str, Any]:
    return {
        "type": "machine-learning-model", "bom-ref": f"models/{name}", "name": f"models/{name}", "version": __version__,
        "hashes": [_sha256(sha256)], **_licences("Apache-2.0"),
    }  # fmt: skip


def _sha256(content: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": content}


def _licences(licence: str) -> dict[str, Any]:
    if licence in SPDX.values() or " AND " in licence or " OR " in licence or "-" in licence:
        return {"licenses": [{"expression": licence}]}
    return {"licenses": [{"license": {"name": licence}}]}


def files() -> dict[Path, bytes]:
    """Both files with their contents."""
    found = packages()
    rows = [f"| {each.name} | {each.version} | {each.licence} | {each.needed} |\n" for each in found]
    content = json.dumps(sbom(found), indent=1, ensure_ascii=False) + "\n"
    return {SBOM: content.encode(), TABLE: (HEAD + "".join(rows)).encode()}


def main() -> int:
    """Write both files."""
    try:
        contents = files()
        write_files(contents)
    except Fault as fault:
        sys.stderr.write(f"ERROR {fault}\n")
        return fault.exit_code
    for path in contents:
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
