"""Look for known vulnerabilities of what `make venv` installs, by pip-audit; skipped, with one line, where PyPI cannot be reached.

python scripts/audit.py
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

CONSTRAINTS = Path(__file__).absolute().parents[1] / "constraints.txt"
INDEX = "https://pypi.org/pypi/{}/json"
PATIENCE = 5.0, 300.0  # seconds for one answer of the index, and for all of it


def main() -> int:
    """Exit code 1 where a pinned version has a known vulnerability, else 0."""
    missing = out_of_reach()
    if missing:
        sys.stdout.write(f"audit skipped: {missing}\n")
        return 0
    options = ["--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *options], capture_output=True, text=True, timeout=PATIENCE[1], check=False
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        sys.stdout.write("audit skipped: the advisories did not come in time\n")
        return 0
    except ValueError:  # pip-audit prints no JSON where it broke off
        sys.stdout.write(f"audit skipped: {(done.stderr.strip().splitlines() or ['pip-audit printed nothing'])[-1]}\n")
        return 0
    text, vulnerable = told(found)
    sys.stdout.write(text)
    return int(vulnerable)


def out_of_reach() -> str:
    """Why the advisories of the pinned torch cannot be had; empty where they can."""
    pinned = re.search(r"^torch==(\S+)", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    address = INDEX.format(f"torch/{pinned[1]}" if pinned else "torch")
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE[0]) as answer:
            return "" if "vulnerabilities" in json.load(answer) else f"{address} holds no advisories"
    except (OSError, ValueError) as error:
        return f"{address} is not reachable ({error})"


def told(found: dict[str, list[dict[str, object]]]) -> tuple[str, bool]:
    """What pip-audit found, one line for each vulnerability, and whether there is one."""
    lines, audited = [], 0
    for package in found["dependencies"]:
        audited += "vulns" in package
        for each in package.get("vulns") or []:  # type: ignore[attr-defined]
            fixed = ", ".join(each["fix_versions"]) or "none yet"
            lines.append(f"{package['name']} {package['version']}: {each['id']}, fixed in {fixed}\n")
    return "".join(lines) or f"no known vulnerability in {audited} of {len(found['dependencies'])} packages\n", bool(lines)


if __name__ == "__main__":
    raise SystemExit(main())
