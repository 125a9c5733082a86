"""A comparison small enough to be made in a test."""

from comparison.choices import Choices
from comparison.rows import chosen_methods

SMALL = {"gmac": 0.3, "iterations": 4, "eval_slices": 2, "crop_size": 32, "scales": (2,)}


def small(data, output, methods="edsr,early_fusion", **choices):
    return Choices(data, output, methods=chosen_methods(methods), **{**SMALL, **choices})
