"""The app's own package is found beside its main.py, as MONAI Label finds it."""

import sys
from pathlib import Path

import hftn_sr

sys.path.insert(0, str(Path(hftn_sr.__file__).parents[1] / "label_app"))
