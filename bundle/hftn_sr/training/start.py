"""The start of a training: settings, network and cases are checked before its first step; initial weights; memory of the process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import ignite.distributed as idist
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hftn_sr.allocator import MMAP_MAX, TOP_PAD, TRIM_THRESHOLD, set_allocator
from hftn_sr.errors import Fault, UsageFault, check_choice, check_scale, end_in_one_line
from hftn_sr.kspace import Decomposition
from hftn_sr.networks import ANY_ACQUISITION, METHODS
from hftn_sr.networks.correspondence import Correspondence
from hftn_sr.networks.gated_unet import GatedUNet
from hftn_sr.networks.weights import Model, described_weights, load_model, load_weights, shipped_models
from hftn_sr.training.protocols import PROTOCOLS
from hftn_sr.training.record import class_name

__all__ = [
    "announce",
    "begun_with",
    "check_counts",
    "check_decomposition",
    "check_flags",
    "check_draws",
    "check_network",
    "check_protocol",
    "check_settings",
    "crop_step",
    "initial_network",
    "initial_record",
    "keep_freed_memory",
    "started_processes",
    "wait_for_processes",
]

Network = TypeVar("Network", bound=nn.Module)


def check_settings(acquisition: str, scale: Any, method: str, crop_size: Any, device: Any) -> None:
    """Refuse hyperparameters that cannot be meant, before anything is made of them.

    Args:
        acquisition: `paper` for k-space lost by `scale` alone, or `any`.
        scale: 2 or 4; of no consequence for `any`.
        method: key of METHODS; for `any`, one whose network serves any acquisition.
        crop_size: multiple of `crop_step`.
        device: what PyTorch sees.

    Raises:
        UsageFault: with the option and what it may be.
    """
    check_choice("--acquisition", acquisition, ("paper", "any"))
    if acquisition == "paper":
        check_scale(scale)
    check_choice("--method", method, tuple(METHODS))
    if acquisition == "any" and METHODS[method].network not in ANY_ACQUISITION:
        fix = "--method base or small, or --acquisition paper"
        raise UsageFault("--acquisition", f"the method {method} knows x2 and x4 alone", fix)
    check_counts(crop_size=crop_size)
    step = crop_step(scale if acquisition == "paper" else None)
    if crop_size % step:
        nearest = max(step, round(crop_size / step) * step)
        finding = f"{crop_size} is no multiple of {step}" + (" (twice the scale)" if acquisition == "paper" else "")
        raise UsageFault("--crop_size", finding, f"--crop_size {nearest}")
    _check_device(device)


def check_protocol(protocol: str, crop: Any, acquisition: str) -> None:
    """Refuse a protocol that there is none of, see `protocols`, or that knows x2 and x4 alone, and a crop that it does not take.

    Raises:
        UsageFault: it is none of them, another than `corrected` for any acquisition, or `corrected` with a crop.
    """
    check_choice("--protocol", protocol, tuple(PROTOCOLS))
    if acquisition == "any":
        _check_serves_any("--protocol", protocol, "corrected")
    if protocol == "corrected" and crop is not None:
        raise UsageFault("--protocol_crop", f"{crop}, but the protocol corrected takes whole slices", "leave it out")


def check_decomposition(decomposition: object, acquisition: str) -> None:
    """Refuse a split of the reference that there is none of, see `kspace.decompose`, or that knows x2 and x4 alone.

    Raises:
        UsageFault: it is none of them, or another than `band` for any acquisition.
    """
    check_choice("--decomposition", decomposition, get_args(Decomposition))
    if acquisition == "any":
        _check_serves_any("--decomposition", decomposition, "band")


def crop_step(scale: int | None) -> int:
    """What crops are aligned to, in voxels: twice the scale; 4 for any acquisition."""
    return 2 * scale if scale else 4


def check_counts(**counts: Any) -> None:
    """Refuse a number of something that is not a whole number above 0.

    Raises:
        UsageFault: it is not.
    """
    for name, count in counts.items():
        if type(count) is not int or count < 1:
            raise UsageFault(f"--{name}", f"{count!r} (need a whole number above 0)", f"--{name} 1, or more")


def check_flags(**flags: Any) -> None:
    """Refuse what is neither True nor False: MONAI's command reads `--amp false` as a text, which would count as true.

    Raises:
        UsageFault: it is neither.
    """
    for name, flag in flags.items():
        if type(flag) is not bool:
            raise UsageFault(f"--{name}", f"{flag!r} (need True or False, with a capital letter)", f"--{name} {str(flag).capitalize()}")


def check_network(network: nn.Module, size: int) -> None:
    """Apply the network to one crop of zeros: one that cannot take it, or gives another shape, would fail or learn nonsense.

    Raises:
        Fault: the network, with what it gave.
    """
    bare = network.module if isinstance(network, DistributedDataParallel) else network
    image = torch.zeros(1, 3, size, size, device=next(iter(bare.parameters()), torch.zeros(0)).device)
    trained, name = bare.training, class_name(bare)
    fix = "the network takes (B, 3, H, W) and returns (B, 1, H, W), see docs/training.md"
    try:
        with torch.no_grad():
            pred = bare.eval()(image)
    except Exception as error:
        raise Fault(name, f"fails on an input of {tuple(image.shape)} ({type(error).__name__}: {error})", fix) from error
    finally:
        bare.train(trained)
    found = tuple(pred.shape) if isinstance(pred, torch.Tensor) else type(pred).__name__
    if found != (1, 1, size, size):
        raise Fault(name, f"gives {found} for an input of {tuple(image.shape)} (need {(1, 1, size, size)})", fix)


def check_draws(dataset: Any) -> None:
    """Draw once from a case of each in-plane size: slices too small for the crop are found before the first step.

    Args:
        dataset: of the training; a cached one has read its cases already.
    """
    seen = set()
    for index, size in enumerate(_sizes(dataset)):
        if size not in seen:
            seen.add(size)
            dataset[index]


def announce(training: Sequence[Mapping[str, Any]], validation: Sequence[Any], output_dir: Any, device: Any) -> None:
    """Log what a training is about to read, and what it saves as best."""
    if idist.get_rank() > 0:
        return
    logger = logging.getLogger("hftn_sr.training")
    logger.info(f"training cases {len(training)}, validation cases {len(validation)}, device {device}, output {output_dir}")
    if not validation:
        logger.warning("no validation case: nothing is scored, and best.safetensors holds the weights of the last epoch")
    logger.info("reading the cases")


def started_processes(method: str) -> int:
    """Number of processes of a training by `multi_gpu_train.yaml`.

    Raises:
        UsageFault: torchrun has not started it, or the method is trained in one process.
    """
    if method in METHODS and METHODS[method].network == "correspondence":
        fix = "leave out multi_gpu_train.yaml and torchrun"
        raise UsageFault("--method", f"{method} is trained in one process", fix)
    if not {"WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
        fix = "begin the command with torchrun --standalone --nproc_per_node=2, or leave out multi_gpu_train.yaml"
        raise UsageFault("--config_file", "multi_gpu_train.yaml is for processes that torchrun starts", fix)
    return int(os.environ["WORLD_SIZE"])


def wait_for_processes(needed: int, found: int) -> None:
    """Wait while processes of an elastic run are missing: with fewer of them its batches, and so its result, would be others.

    torchrun ends this process and begins again from the last checkpoint as soon as the missing ones have joined.

    Args:
        needed: number of processes that the run is to have; 0 for those that there are.
        found: number of processes that there are.

    Raises:
        UsageFault: there are more, or there are fewer and torchrun does not look after them.
    """
    if not needed or found == needed:
        return
    if found > needed or not torch.distributed.is_torchelastic_launched():
        finding = f"{found} processes run, {needed} are wanted"
        raise UsageFault("--processes", finding, f"--processes {found}, or torchrun with as many in all")
    if idist.get_rank() == 0:
        logging.getLogger("hftn_sr.training").warning(f"{found} of {needed} processes: waiting until torchrun has the others again")
    while True:  # until the signal of torchrun
        time.sleep(60)


def _sizes(dataset: Any) -> list[Any]:
    """In-plane size of each case of a dataset that has read them; none of another."""
    cases: Any = getattr(dataset, "_cache", None) or getattr(dataset, "data", None) or ()
    return [tuple(case["label"].shape[1:3]) for case in cases if isinstance(case, Mapping) and hasattr(case.get("label"), "shape")]


def _check_serves_any(option: str, value: object, needed: str) -> None:
    if value != needed:
        raise UsageFault(option, f"{value} knows x2 and x4 alone", f"{option} {needed}, or --acquisition paper")


def _check_device(device: Any) -> None:
    try:
        kind, index = (chosen := torch.device(device)).type, chosen.index or 0
    except (RuntimeError, TypeError):
        raise UsageFault("--device", f"{device!r} is no device", "--device cpu, or --device cuda:0") from None
    if kind == "cuda" and index >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} of them" if torch.cuda.is_available() else "none"
        raise UsageFault("--device", f"{device} was asked for, PyTorch sees {found}", "--device cpu, or install a CUDA build of PyTorch")


def initial_network(network: Network, initial_weights: str | None, scale: int | None) -> Network:
    """The network at the start of a training. Weights that cannot be used end the process with one line.

    Args:
        network: untrained network.
        initial_weights: name of shipped weights, or a .safetensors file of the same network; None for the random weights of `network`.
            `network` takes their activation.
        scale: 2 or 4; None for any acquisition, which weights of a scale can begin, too: the layers are the same.
    """
    if initial_weights is None:
        return network
    with end_in_one_line():
        model = _initial_model(initial_weights, scale)
        _take_slope(network, model.network, initial_weights)
        return load_weights(network, model.path)


def _take_slope(network: nn.Module, trained: nn.Module, weights: str) -> None:
    """Give a network the activation of weights: they fit any, and give nonsense with another.

    Raises:
        UsageFault: the network was asked to have a third one.
    """
    if not isinstance(network, (GatedUNet, Correspondence)):
        return
    asked, theirs = network.options["slope"], getattr(trained, "options", {}).get("slope", 0.0)
    if asked not in (0.0, theirs):
        raise UsageFault("--options", f"slope {asked}, but {weights} was trained with {theirs}", "leave slope out of --options")
    network.use_slope(theirs)


def begun_with(network: Correspondence, unet: str | None, scale: int | None) -> Correspondence:
    """A network that searches, with the U-Net of trained weights, see `Correspondence.begin_with`. Weights that cannot be used end the
    process with one line.

    Args:
        network: untrained network.
        unet: name of shipped weights or a .safetensors file, of a `GatedUNet` with the same channels and levels; None for none.
        scale: 2 or 4; None for any acquisition, see `initial_network`.
    """
    if unet is None:
        return network
    with end_in_one_line():
        model = _initial_model(unet, scale, option="initial_unet")
        unet_options = getattr(model.network, "options", {})
        sizes = {name: network.options[name] for name in ("channels", "levels", "equivariant")}
        fits = isinstance(model.network, GatedUNet) and sizes == {name: unet_options.get(name) for name in sizes}
        if not (fits and network.searching and unet_options.get("gated")):
            raise UsageFault("initial_unet", f"{unet} holds no gated U-Net of {sizes}", "--method correspondence_small for small")
        assert isinstance(model.network, GatedUNet)
        _take_slope(network, model.network, unet)
        network.begin_with(model.network)
    return network


def initial_record(initial_weights: str | None, scale: int | None) -> dict[str, Any] | None:
    """SHA-256 and record of the initial weights, for the record of the trained ones; None for random weights.

    A training for any acquisition also records their scale.
    """
    if initial_weights is None:
        return None
    model = _initial_model(initial_weights, scale)
    return {"sha256": model.sha256, **({"scale": model.scale} if scale is None else {}), **model.record}


def _initial_model(initial_weights: str, scale: int | None, option: str = "--initial_weights") -> Model:
    """For any acquisition: weights for any, or a file of any scale; for a name without weights for any, those of scale 4."""
    if scale is None and initial_weights.endswith(".safetensors"):
        scale = described_weights(Path(initial_weights), option=option)[0].options["scale"]  # type: ignore[assignment,index]
    elif scale is None and f"{initial_weights}_any.safetensors" not in shipped_models():
        scale = 4
    return load_model(initial_weights, scale, option=option)


def keep_freed_memory() -> bool:
    """Keep freed memory in the process for its next tensors, instead of returning it to the system in every step.

    The system hands out new memory page by page, each filled with zeros. On a CPU that takes a tenth of a training's time
    (docs/design-log.md). The memory of the process stays at its peak.

    Returns:
        True with glibc (Linux); elsewhere nothing changes.
    """
    return set_allocator((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 100 * 2**20))
