"""Ignite handlers and metrics of the training and evaluation workflows. Attached in several processes, only the main one writes."""

from hftn_sr.training.handlers.display import CaseProgress, Curves, Progress, preview
from hftn_sr.training.handlers.predictions import SavePredictions
from hftn_sr.training.handlers.scores import AcquisitionGains, EarlyStop, Validation, VolumeScore
from hftn_sr.training.handlers.state import Checkpoint, ReleaseCase, ReseedEveryEpoch, StopAtNonFiniteLoss

__all__ = [
    "AcquisitionGains",
    "CaseProgress",
    "Checkpoint",
    "Curves",
    "EarlyStop",
    "Progress",
    "ReleaseCase",
    "ReseedEveryEpoch",
    "SavePredictions",
    "StopAtNonFiniteLoss",
    "Validation",
    "VolumeScore",
    "preview",
]
