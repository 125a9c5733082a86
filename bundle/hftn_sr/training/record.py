"""The record of a training, read from the objects that train: it is true whatever a configuration overrides."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import monai
import torch
from monai.inferers import Inferer
from torch import nn

from hftn_sr._version import __version__
from hftn_sr.errors import differences
from hftn_sr.networks import NETWORKS, network_name

__all__ = ["class_name", "describe", "network_record", "run_differences", "training_record"]

SKIPPED = {"last_epoch", "allow_missing_keys"}  # constructor arguments: one changes during a run, one tells nothing
DEGRADATION = {
    "acquisition": "acquisition",
    "decomposition": "decomposition",
    "protocol": "protocol",
    "protocol_crop": "crop",
}  # in the record, in the transform


def training_record(engine: Any, network: nn.Module, optimizer: Any, lr_scheduler: Any) -> dict[str, Any]:
    """What a training uses: network, loss, optimizer, schedule, inferer, transforms, cases per step, versions.

    Build it before a checkpoint is loaded: optimizers and schedules then still have their initial settings.

    Args:
        engine: trainer; what a plain engine lacks, the record lacks.
        network: trained network, not wrapped for several processes.
        optimizer: optimizer of the trainer.
        lr_scheduler: schedule of its learning rate.

    Returns:
        JSON types only.
    """
    loader = getattr(engine, "data_loader", None)
    transform = getattr(getattr(loader, "dataset", None), "transform", None)
    transforms = list(getattr(transform, "transforms", () if transform is None else (transform,)))
    degradation: Any = next((each for each in transforms if hasattr(each, "decomposition")), None)
    found = {
        "network": network_record(network),
        "loss": describe(getattr(engine, "loss_function", None)),
        "optimizer": _optimizer_record(optimizer),
        "lr_scheduler": describe(lr_scheduler),
        "inferer": describe(getattr(engine, "inferer", None)),
        "transforms": [describe(each) for each in transforms],
        **{name: _plain(getattr(degradation, setting, None)) for name, setting in DEGRADATION.items()},
        "cases_per_step": (getattr(loader, "batch_size", None) or 0) * idist.get_world_size(),
    }
    software = {"hftn_sr": __version__, "torch": str(torch.__version__), "monai": str(monai.__version__)}
    return {**{name: value for name, value in found.items() if value and value is not _UNKNOWN}, "software": software}


def network_record(network: nn.Module) -> dict[str, Any]:
    """Name and options of one of NETWORKS; class and settings of any other network."""
    if type(network) in NETWORKS.values():
        return {"name": network_name(network), **_plain(network.options)}
    return {"name": class_name(network), **{name: value for name, value in describe(network).items() if name != "class"}}


def describe(part: Any) -> dict[str, Any]:
    """The class of an object and those of its constructor's arguments that it keeps under their names; the name of a function."""
    if part is None:
        return {}
    if inspect.isroutine(part):
        return {"class": f"{part.__module__}.{part.__qualname__}"}
    kept = getattr(part, "__dict__", {})
    names = [name for name in inspect.signature(type(part).__init__).parameters if name in kept and name not in SKIPPED]
    settings = {name: _plain(kept[name]) for name in names}
    return {"class": class_name(part), **{name: value for name, value in settings.items() if value is not _UNKNOWN}}


def class_name(part: Any) -> str:
    """Full dotted path of an object's class."""
    return f"{type(part).__module__}.{type(part).__qualname__}"


def run_differences(earlier: Mapping[str, Any], own: Mapping[str, Any], leave_out: tuple[str, ...] = ()) -> list[str]:
    """What differs between two records of runs, among the settings that both hold, as in `optimizer.lr 0.01, now 0.005`.

    Args:
        earlier: record of the run that was begun first.
        own: record of this run.
        leave_out: names at the top of both that may differ; `software` always may.
    """
    names = (earlier.keys() & own.keys()) - {"software", *leave_out}
    one, other = (dict(_flat({name: record[name] for name in names})) for record in (earlier, own))
    common = one.keys() & other.keys()
    return differences({name: one[name] for name in common}, {name: other[name] for name in common})


_UNKNOWN = object()


def _plain(value: Any) -> Any:
    """A setting as JSON types, or _UNKNOWN."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):  # also subclasses, such as NumPy's float64
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, torch.dtype | torch.device | Path):
        return str(value)
    if isinstance(value, Inferer):
        return describe(value)
    if isinstance(value, Mapping):
        return {str(name): plain for name, each in value.items() if (plain := _plain(each)) is not _UNKNOWN}
    if isinstance(value, list | tuple):
        values = [_plain(each) for each in value]
        return _UNKNOWN if _UNKNOWN in values else values
    return _UNKNOWN


def _optimizer_record(optimizer: Any) -> dict[str, Any]:
    """Class and settings of the parameter groups: one value where all groups agree, else a list."""
    groups = [{name: value for name, value in group.items() if name != "params"} for group in getattr(optimizer, "param_groups", ())]
    initial = [{**group, "lr": group.get("initial_lr", group.get("lr"))} for group in groups]
    settings: dict[str, Any] = {}
    for name in sorted({name for group in initial for name in group} - {"initial_lr"}):
        values = [_plain(group.get(name)) for group in initial]
        if _UNKNOWN not in values:
            settings[name] = values[0] if all(value == values[0] for value in values) else values
    return {"class": class_name(optimizer), **settings}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their path. A list of objects also gives the order of their classes."""
    prefix = f"{name}." if name else ""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(each, f"{prefix}{key}")
    elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        labels = [str(each.get("class")).rsplit(".", 1)[-1] for each in value]
        yield name, ", ".join(labels)
        for index, (label, each) in enumerate(zip(labels, value, strict=True)):
            number = labels[:index].count(label)
            yield from _flat(each, f"{prefix}{label}{f' {number + 1}' if number else ''}")
    else:
        yield name, value
