"""Pack bundle/ into one file for the MONAI Model Zoo or anyone who wants the bundle without this repository.

python scripts/package_bundle.py

writes dist/mri_multi_contrast_super_resolution_v<version>.zip and prints its SHA-256. The archive holds the files that git tracks, as they
lie in the working tree, under one folder with the bundle's name; the same files give the same bytes, whenever and wherever it is made.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer

from hftn_sr.errors import Fault
from hftn_sr.volumes.files import write_bytes
from zoo_rules import LARGEST, NECESSARY

NAME = "mri_multi_contrast_super_resolution"
ROOT = Path(__file__).absolute().parents[1]
MATERIALS = ("sbom.cdx.json", "docs/third_party_licenses.md")  # by write_sbom.py
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold


def package(root: Path, output: Path) -> Path:
    """Write the archive of `root`/bundle into the folder `output`; one of the same version is replaced.

    Raises:
        Fault: the bundle is not fit for the Model Zoo: a file is missing, too large or a link, or the version has no changelog entry.
    """
    bundle = root / "bundle"
    files = tracked_files(bundle)
    version = checked_version(bundle, files)
    path = output / f"{NAME}_v{version}.zip"
    write_bytes(path, archive(bundle, files))
    return path


def tracked_files(bundle: Path) -> list[str]:
    """Paths below `bundle` of the files that git tracks, sorted. Raises Fault for a file that the archive may not hold."""
    files = sorted(_git(bundle, "ls-files", "-z"))
    for name in files:
        path = bundle / name
        if path.is_symlink():
            raise Fault(path, "is a symbolic link, which an archive cannot carry to other systems", "put the file itself in its place")
        if not path.is_file():
            raise Fault(path, "git tracks it, but it is not there", f"git checkout -- {path}")
        if path.stat().st_size > LARGEST:
            raise Fault(path, f"{path.stat().st_size} bytes, the Model Zoo takes {LARGEST}", "name it in large_files.yml instead")
    missing = [name for name in (*NECESSARY, "configs/inference.json", *MATERIALS) if name not in files]
    if missing:
        raise Fault(bundle / missing[0], "missing or not tracked by git, and a release needs it", f"git add {bundle / missing[0]}")
    return files


def checked_version(bundle: Path, files: list[str]) -> str:
    """The version of the metadata. Raises Fault where metadata, changelog and package do not agree on it."""
    path = bundle / "configs" / "metadata.json"
    metadata: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    version: str = metadata["version"]
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise Fault(path, f"version {version!r} is not of the form 1.2.3", "correct it")
    if version not in metadata["changelog"]:
        raise Fault(path, f"the changelog says nothing of version {version}", "add an entry under that version")
    source = "hftn_sr/_version.py"
    if source in files and f'__version__ = "{version}"' not in (bundle / source).read_text(encoding="utf-8"):
        raise Fault(path, f"version {version} is not the __version__ of {source}", "make them one")
    return version


def archive(bundle: Path, files: list[str]) -> bytes:
    """The zip file of `files`, sorted, with one date and two modes, stored: what deflate gives depends on the version of zlib."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as zipped:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{NAME}/{name}", DATE)
            entry.create_system = 3  # Unix, on Windows too
            executable = (bundle / name).stat().st_mode & stat.S_IXUSR
            entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            zipped.writestr(entry, (bundle / name).read_bytes())
    return buffer.getvalue()


def uncommitted(bundle: Path) -> list[str]:
    """What of `bundle` is not as the last commit has it: changed files go into the archive as they are, new ones stay out of it."""
    changed = [f"{name}: differs from the last commit" for name in _git(bundle, "diff", "HEAD", "--relative", "--name-only", "-z")]
    new = [f"{name}: not tracked by git, left out" for name in _git(bundle, "ls-files", "--others", "--exclude-standard", "-z")]
    return sorted(changed) + sorted(new)


def _git(folder: Path, *arguments: str) -> list[str]:
    """The names that a git command gives, run in `folder`. Raises Fault where git cannot."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", b"").decode(errors="replace").strip() or str(error)
        raise Fault(folder, f"git cannot list its files ({detail})", "package from a git clone") from None
    return [name for name in done.stdout.decode().split("\0") if name]


def main(output: Annotated[Path, typer.Option(help="Folder for the archive.")] = ROOT / "dist") -> None:
    """Check the bundle against the Model Zoo's rules, pack it, print the archive's hash."""
    try:
        path = package(ROOT, output)
        remarks = uncommitted(ROOT / "bundle")
    except Fault as fault:
        sys.stderr.write(f"ERROR {fault}\n")
        raise SystemExit(fault.exit_code) from None
    for remark in remarks:
        sys.stderr.write(f"WARNING {remark}\n")
    content = path.read_bytes()
    typer.echo(f"{hashlib.sha256(content).hexdigest()}  {path}  ({len(content) / 1e6:.1f} MB)")


if __name__ == "__main__":
    typer.run(main)
