"""What pip installs beside the package: the bundle's folders, inside it, see bundle/hftn_sr/_bundle.py."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CARRIED = (
    "LICENSE",
    "sbom.cdx.json",
    "configs",
    "models",
    "label_app",
    "docs/README.md",
    "docs/data_license.txt",
    "docs/third_party_licenses.md",
)


class CarryBundle(BuildHookInterface):  # type: ignore[misc]
    """Put the bundle's folders into the wheel; an editable installation has them in the clone."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds."""
        if version == "standard":
            build_data["force_include"].update({f"bundle/{name}": f"hftn_sr/bundle/{name}" for name in CARRIED})
