"""MONAI dictionary transforms of the workflows."""

from hftn_sr.transforms.augmentation import RandCropSamplesd, RandDropReferenced, RandShiftReferenced, RandSliced, ShiftReferenced
from hftn_sr.transforms.pair import DegradePaird, LoadPaird, RandDegradePaird

__all__ = [
    "DegradePaird",
    "LoadPaird",
    "RandCropSamplesd",
    "RandDegradePaird",
    "RandDropReferenced",
    "RandShiftReferenced",
    "RandSliced",
    "ShiftReferenced",
]
