"""Write the JSON twin of each workflow: `monai.bundle.load` and older tools read only JSON.

python scripts/write_json_twins.py
"""

from __future__ import annotations

from pathlib import Path

from monai.bundle import ConfigParser

CONFIGS = Path(__file__).absolute().parents[1] / "bundle" / "configs"


def main() -> None:
    """Replace bundle/configs/*.json, metadata.json excepted."""
    for source in sorted(CONFIGS.glob("*.yaml")):
        config = ConfigParser.load_config_file(source)
        ConfigParser.export_config_file(config, source.with_suffix(".json"), indent=2)


if __name__ == "__main__":
    main()
