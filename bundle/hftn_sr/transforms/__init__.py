"""MONAI dictionary transforms of the workflows."""

from hftn_sr.transforms.augmentation import (
    Cropd,
    DropReferenced,
    GammaContrastd,
    MisalignReferenced,
    RandCropSamplesd,
    RandDropReferenced,
    RandGammaContrastd,
    RandMisalignReferenced,
    RandSliced,
    Sliced,
    separate_slices,
)
from hftn_sr.transforms.pair import DegradePaird, LoadPaird, RandDegradePaird, RestoreIntensityd

__all__ = [
    "Cropd",
    "DegradePaird",
    "DropReferenced",
    "GammaContrastd",
    "LoadPaird",
    "MisalignReferenced",
    "RandCropSamplesd",
    "RandDegradePaird",
    "RandDropReferenced",
    "RandGammaContrastd",
    "RandMisalignReferenced",
    "RandSliced",
    "RestoreIntensityd",
    "Sliced",
    "separate_slices",
]
