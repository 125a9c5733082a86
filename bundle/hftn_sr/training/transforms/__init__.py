"""MONAI dictionary transforms of the workflows."""

from hftn_sr.training.transforms.augmentation import (
    Cropd,
    DropReferenced,
    GammaContrastd,
    MisalignReferenced,
    Orientd,
    RandCropSamplesd,
    RandDropReferenced,
    RandGammaContrastd,
    RandMisalignReferenced,
    RandOrientd,
    RandSliced,
    RandVoxelSized,
    Sliced,
    SliceSignald,
    VoxelSized,
    separate_slices,
)
from hftn_sr.training.transforms.displacement import (
    DisplaceReferenced,
    ForeignReferenced,
    RandDisplaceReferenced,
    RandForeignReferenced,
)
from hftn_sr.training.transforms.pair import DegradePaird, LoadPaird, RandDegradePaird, RestoreIntensityd

__all__ = [
    "Cropd",
    "DegradePaird",
    "DisplaceReferenced",
    "DropReferenced",
    "ForeignReferenced",
    "GammaContrastd",
    "LoadPaird",
    "MisalignReferenced",
    "Orientd",
    "RandCropSamplesd",
    "RandDegradePaird",
    "RandDisplaceReferenced",
    "RandDropReferenced",
    "RandForeignReferenced",
    "RandGammaContrastd",
    "RandMisalignReferenced",
    "RandOrientd",
    "RandSliced",
    "RandVoxelSized",
    "RestoreIntensityd",
    "SliceSignald",
    "Sliced",
    "VoxelSized",
    "separate_slices",
]
