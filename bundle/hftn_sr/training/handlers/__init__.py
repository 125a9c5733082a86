"""Ignite handlers and metrics of the training and evaluation workflows. Attached in several processes, only the main one writes."""

from hftn_sr.training.handlers.display import CaseProgress, Curves, Progress, preview
from hftn_sr.training.handlers.scores import AcquisitionGains, Validation, VolumeScore
from hftn_sr.training.handlers.state import Checkpoint, ReleaseCase, ReseedEveryEpoch, StopAtNonFiniteLoss

__all__ = [
    "AcquisitionGains",
    "CaseProgress",
    "Checkpoint",
    "Curves",
    "Progress",
    "ReleaseCase",
    "ReseedEveryEpoch",
    "StopAtNonFiniteLoss",
    "Validation",
    "VolumeScore",
    "preview",
]
