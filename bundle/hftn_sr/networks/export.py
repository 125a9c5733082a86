"""A trained network as one file that needs no code of this package: TorchScript or ONNX, for slices of any size up to a stated one."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from hftn_sr._version import NOTICE, __version__
from hftn_sr.errors import Fault, UsageFault, check_choice
from hftn_sr.networks import network_name
from hftn_sr.networks.layers import check_image
from hftn_sr.networks.weights import Model
from hftn_sr.volumes.files import write_bytes

__all__ = ["Format", "check_output", "export_model", "exported_bytes", "largest_voxels"]

Format = Literal["torchscript", "onnx"]

LARGEST_PATCHES = 16384  # of a slice: an exported search holds the similarity of every pair of patches at once, 1 GiB in float32
EXAMPLE = (1, 3, 64, 48)  # the shape at which a network is traced; two sizes, so that one cannot be taken for the other


def export_model(model: Model, form: Format, path: Path) -> dict[str, Any]:
    """Write `model` to one file, in one step.

    Args:
        model: what to export.
        form: `torchscript` or `onnx`.
        path: .ts, .pt or .onnx file.

    Returns:
        the metadata inside the file: under `metadata.json` of TorchScript's extra files, as MONAI writes and reads it, or as the properties
        of an ONNX model, each value JSON.

    Raises:
        UsageFault: another form.
        Fault: a package is missing, or the file cannot be written.
    """
    check_choice("--format", form, get_args(Format))
    metadata = _metadata(model)
    write_bytes(path, exported_bytes(model.network, form, metadata))
    return metadata


def exported_bytes(network: nn.Module, form: Format, metadata: dict[str, Any]) -> bytes:
    """Content of the file.

    Its one input is `image` (1, 3, H, W) and its one output `pred` (1, 1, H, W), float32, any H and W of at most `largest_voxels` in all.
    TorchScript refuses larger slices; ONNX has no way to, and states the limit in its metadata.

    Args:
        network: in evaluation mode, on the CPU.
        form: `torchscript` or `onnx`.
        metadata: JSON values to store inside.

    Raises:
        Fault: a package is missing.
    """
    with _quiet(), torch.no_grad():
        return _torchscript(network, metadata) if form == "torchscript" else _onnx(network, metadata)


def largest_voxels(network: nn.Module) -> int | None:
    """How many voxels a slice given to the exported network may have, on the high-resolution grid; None where only memory limits it.

    The network itself searches in blocks and has no such limit. An exported graph holds the search as one matrix product, because a loop
    over blocks would be fixed to the size that it was traced at.
    """
    options: dict[str, Any] = getattr(network, "options", {})
    if options.get("transfer", "none") == "none":
        return None
    side: int = options["scale"] * options["patch"]
    return LARGEST_PATCHES * side**2


class Limited(nn.Module):
    """A traced network that refuses other shapes and slices too large for it; scripted, so that the checks are in the file.

    Args:
        network: traced.
        largest: voxels of a slice; 0 for any.
    """

    def __init__(self, network: nn.Module, largest: int) -> None:
        super().__init__()
        self.network = network
        self.largest = largest

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 1, H, W)."""
        check_image(image)
        if self.largest > 0 and image.shape[2] * image.shape[3] > self.largest:
            raise RuntimeError(f"a slice of {image.shape[2]} x {image.shape[3]} voxels is too large for this file, see metadata.json")
        pred: Tensor = self.network(image)
        return pred


def _torchscript(network: nn.Module, metadata: dict[str, Any]) -> bytes:
    traced = torch.jit.trace(network, torch.rand(EXAMPLE), check_trace=False)
    limited = torch.jit.script(Limited(traced, largest_voxels(network) or 0).eval())
    buffer = io.BytesIO()
    torch.jit.save(limited, buffer, {"metadata.json": json.dumps(metadata).encode()})
    return buffer.getvalue()


def _onnx(network: nn.Module, metadata: dict[str, Any]) -> bytes:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise Fault("--format onnx", f"the package {missing[0]} is missing", "pip install 'hftn-sr[export]'")
    import onnx

    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        network, (torch.rand(EXAMPLE),), dynamo=True, dynamic_shapes=(sides,), input_names=["image"], output_names=["pred"], verbose=False
    )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {name: json.dumps(value) for name, value in metadata.items()})
    proto.producer_name, proto.producer_version, proto.doc_string = "hftn_sr", __version__, NOTICE
    content: bytes = proto.SerializeToString()
    return content


def _metadata(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "notice": NOTICE,
        "licence": "Apache-2.0",
        "hftn_sr_version": __version__,
        "pytorch_version": torch.__version__,
        "network": network_name(model.network),
        "options": model.network.options,
        "scale": model.scale,
        "weights_sha256": model.sha256,
        "decomposition": model.record.get("decomposition", "band"),
        "input": "image (1, 3, H, W) float32 on the high-resolution grid: zero-filled target, low band and high band of the reference; "
        "target and reference each divided by the 99.9th percentile of their positive voxels",
        "output": "pred (1, 1, H, W) float32: the target at high resolution, in the unit of the input",
        "largest_voxels": largest_voxels(model.network),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks on values that the trace fixes (each is a constant of the network) and on packages not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def check_output(path: Path, form: str, overwrite: bool) -> None:
    """Find out, before the work, whether `path` can be written.

    Raises:
        UsageFault: a name that does not fit the format.
        Fault: it exists and may not be replaced.
    """
    check_choice("--format", form, get_args(Format))
    endings = {"torchscript": (".ts", ".pt"), "onnx": (".onnx",)}[form]
    if path.suffix not in endings:
        raise UsageFault(path, f"does not end as a file of the format {form} does", f"--output FILE{endings[0]}")
    if path.exists() and not overwrite:
        raise Fault(path, "exists already", "--overwrite always, or another --output")
