"""Trained networks by name or file: what they are, whether they are intact, how they were trained."""

from __future__ import annotations

import hashlib
import io
import json
import reprlib
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import nn

from hftn_sr._bundle import BUNDLE
from hftn_sr.errors import SCALES, Fault, UsageFault
from hftn_sr.networks import NETWORKS, build_network, channels_last, network_name
from hftn_sr.networks.bounds import bounded_network
from hftn_sr.volumes.files import sha256_of, write_bytes

__all__ = [
    "MODELS_FOLDER",
    "Model",
    "check_model",
    "described_weights",
    "is_finite",
    "list_hashes",
    "load_model",
    "load_weights",
    "save_weights",
    "shipped_file",
    "shipped_models",
    "shipped_names",
    "stand_in",
    "untrained_network",
    "weights_metadata",
]

MODELS_FOLDER = BUNDLE / "models"
STAND_IN = "correspondence"  # where `base` has no weights
HASHES = MODELS_FOLDER / "SHA256SUMS"
Network = TypeVar("Network", bound=nn.Module)

RENAMED = {"turning": "equivariant", "width": "channels"}  # options of networks in files written before 0.1.0
DAMAGED = "fetch the file again; weights are .safetensors files that this package wrote"


@dataclass(frozen=True)
class Model:
    """A trained network ready to use.

    Args:
        network: in evaluation mode, on the device asked for.
        name: as asked for, with the scale or "any".
        path: the weights' file.
        sha256: of that file.
        scale: upscaling factor s; None for weights that serve any acquisition.
        record: how it was trained.
    """

    network: nn.Module
    name: str
    path: Path
    sha256: str
    scale: int | None
    record: dict[str, Any]


def shipped_models() -> dict[str, str]:
    """File name to SHA-256 of the weights in `models/`."""
    if not HASHES.is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in HASHES.read_text(encoding="utf-8").splitlines() if line.strip())
    return {name.strip().lstrip("*"): sha256 for sha256, name in lines}


def list_hashes(*names: str) -> None:
    """Write SHA256SUMS anew, of the files in `models/` that it lists and of these."""
    lines = (f"{sha256_of(MODELS_FOLDER / name)}  {name}\n" for name in sorted({*shipped_models(), *names}))
    write_bytes(HASHES, "".join(lines).encode())


def shipped_names(scale: int | None = None) -> list[str]:
    """Names of the shipped models; with a scale, of those that serve it; for None, of those that serve any acquisition."""
    serving = ("any",) if scale is None else ("any", f"x{scale}")
    return sorted({name.rsplit("_", 1)[0] for name in shipped_models() if name.removesuffix(".safetensors").endswith(serving)})


def stand_in(model: str, scale: int | None) -> str:
    """The model that serves: where the shipped `base` has no weights for a loss of resolution, `correspondence`, if that has."""
    return STAND_IN if model == "base" and model not in shipped_names(scale) and STAND_IN in shipped_names(scale) else model


def shipped_file(model: str, scale: int | None) -> Path:
    """The file of a shipped model for a scale, or for any acquisition, which may be that of its `stand_in`.

    Raises:
        UsageFault: there is none.
    """
    return _path(stand_in(model, scale), scale)


def check_model(model: str) -> None:
    """Find out, before any case is read, that there is such a model for some acquisition.

    Raises:
        UsageFault: neither a shipped model nor a .safetensors file that exists.
    """
    found = [scale for scale in (2, 4) if (MODELS_FOLDER / f"{model}_x{scale}.safetensors").is_file()]
    path = _path(model, found[0] if found else SCALES[0])
    if not path.is_file():
        raise UsageFault(path, "no such weights file", "check --model")


def load_model(model: str, scale: int | None, device: torch.device | str = "cpu", option: str = "--model") -> Model:
    """A trained network for `scale`: weights of that scale, else weights that serve any acquisition.

    Args:
        model: name of shipped weights, or the path of a .safetensors file written by `save_weights`.
        scale: 2 or 4; None for an acquisition that lost resolution otherwise.
        device: where the network is wanted.
        option: by which the user named the model, for errors.

    Raises:
        Fault: no such file, a file that is not what it should be, weights of another scale, or weights that are not finite.
    """
    path = _path(model, scale, option)
    content = _content(path, option)
    sha256 = hashlib.sha256(content).hexdigest()
    network, record = _network(path, content)
    _check_scale(path, network, scale)
    network = channels_last(network.eval().requires_grad_(False).to(device))
    own: int | None = network.options["scale"]  # type: ignore[assignment,index]
    name = f"{path.stem if path.parent != MODELS_FOLDER else model} {'any' if own is None else f'x{own}'}"
    return Model(network, name, path, sha256, own, record)


def load_weights(network: Network, path: Path | str) -> Network:
    """`network` with the weights of a .safetensors file, or of a .pt file with a plain state dict; every one must fit.

    Raises:
        Fault: the file is missing or damaged, or belongs to another network.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        state = _tensors(path, _content(path))
    else:
        try:
            state = torch.load(io.BytesIO(_content(path)), map_location="cpu", weights_only=True)  # never runs code from the file
        except Fault:
            raise
        except Exception as error:
            raise Fault(path, f"not a plain state dict ({type(error).__name__})", DAMAGED) from error
    _fill(network, state, path)
    return network


def untrained_network(weights: Path | str, scale: int | None, method: str = "base") -> nn.Module:
    """The network that weights are for, as the workflows build it before they load them.

    Args:
        weights: a .safetensors file, which says for which network and options it is, or a .pt file with a plain state dict, which does not.
        scale: 2 or 4; None for any acquisition.
        method: key of METHODS, for a .pt file.

    Raises:
        Fault: the file is missing or damaged.
        UsageFault: weights of another scale.
    """
    path = Path(weights)
    if path.suffix != ".safetensors":
        return build_network(method, scale)
    network, _ = _described(path, _content(path))
    _check_scale(path, network, scale)
    return network


def save_weights(path: Path | str, network: nn.Module, record: dict[str, Any]) -> None:
    """Write the weights of one of NETWORKS, its name, options and training record as one .safetensors file, in one step.

    Raises:
        ValueError: a network of another kind, which could not be built again from its file.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(Path(path), safetensors.torch.save(state, weights_metadata(network, record)))


def weights_metadata(network: nn.Module, record: dict[str, Any]) -> dict[str, str]:
    """The header of a weights file: the network's name, its options and its training record.

    Raises:
        ValueError: a network of another kind.
    """
    return {"network": network_name(network), "options": json.dumps(network.options), "record": json.dumps(record)}


def is_finite(network: nn.Module) -> bool:
    """Whether all weights of a network are numbers, none of them infinite."""
    return all(bool(torch.isfinite(each).all()) for each in network.state_dict().values() if isinstance(each, torch.Tensor))


def described_weights(path: Path, option: str = "--model") -> tuple[nn.Module, dict[str, Any]]:
    """The network that `save_weights` was given, untrained, and what it was told of the training.

    Args:
        path: the weights' file.
        option: by which the user named it, for errors.

    Raises:
        Fault: the file cannot be read, or is not one that it wrote.
    """
    return _described(path, _content(path, option))


def _path(model: str, scale: int | None, option: str = "--model") -> Path:
    if model.endswith((".safetensors", ".pt", ".pth", ".ts")) or "/" in model or "\\" in model:
        path = Path(model)
        if path.suffix != ".safetensors":
            raise UsageFault(path, "weights of this kind could run code, a .safetensors file is needed", f"{option} FILE.safetensors")
        return path
    path = MODELS_FOLDER / f"{model}_x{scale}.safetensors"
    if not path.is_file():
        path = MODELS_FOLDER / f"{model}_any.safetensors"
    if not path.is_file():
        wanted = f"scale {scale}" if scale else "this loss of resolution"
        finding = f"no model {model!r} for {wanted} (shipped: {', '.join(shipped_names(scale)) or 'none'})"
        raise UsageFault(option, finding, "name one of those or a .safetensors file")
    return path


def _content(path: Path, option: str = "--model") -> bytes:
    """The bytes of a weights file; of one in `models/`, those that SHA256SUMS names."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Fault(path, f"weights cannot be read ({error.strerror})", f"check {option}") from None
    if path.resolve().parent == MODELS_FOLDER.resolve():
        sha256, expected = hashlib.sha256(content).hexdigest(), shipped_models().get(path.name, "a line in SHA256SUMS")
        if sha256 != expected:
            fix = "restore the file from the release, or keep weights of your own in another folder"
            raise Fault(path, f"damaged or replaced (sha256 {sha256}, need {expected})", fix)
    return content


def _tensors(path: Path, content: bytes) -> dict[str, torch.Tensor]:
    try:
        state: dict[str, torch.Tensor] = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise Fault(path, f"not a safetensors file, or damaged ({error})", DAMAGED) from None
    return state


def _network(path: Path, content: bytes) -> tuple[nn.Module, dict[str, Any]]:
    state = _tensors(path, content)
    network, record = _described(path, content)
    _fill(network, state, path)
    return network, record


def _described(path: Path, content: bytes) -> tuple[nn.Module, dict[str, Any]]:
    """Untrained network and training record after the file's header."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        name = "hftn" if metadata["network"] == "HFTNSR" else metadata["network"]  # as 0.1 wrote it
        if isinstance(name, str) and name not in NETWORKS:
            finding = (
                f"holds a network {textwrap.shorten(repr(name), 100)}, which this version does not have (it has {', '.join(NETWORKS)})"
            )
            raise Fault(path, finding, "use the version of hftn-sr that wrote the file, or train one of these")
        options = {str(RENAMED.get(option, option)): value for option, value in dict[str, Any](json.loads(metadata["options"])).items()}
        network = bounded_network(NETWORKS[name], options, [tuple(map(int, tensor["shape"])) for tensor in header.values()])
        record = json.loads(metadata.get("record", "{}"))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, MemoryError) as error:
        finding = f"does not say which network it is for ({textwrap.shorten(repr(error), 160, placeholder=' ...')})"
        raise Fault(path, finding, "use a file that save_weights wrote") from None
    if not isinstance(record, dict):
        raise Fault(path, f"holds a record that is no mapping ({reprlib.repr(record)})", "use a file that save_weights wrote")
    return network, record


def _check_scale(path: Path, network: nn.Module, scale: int | None) -> None:
    own: int | None = network.options["scale"]  # type: ignore[assignment,index]
    if own is not None and own != scale:
        if scale is None:
            finding = f"these weights are for scale {own} along both in-plane axes, this target lost resolution otherwise"
            raise UsageFault(path, finding, "weights for any acquisition, such as --model correspondence")
        raise UsageFault(path, f"these weights are for scale {own}, scale {scale} is needed", f"--scale {own}")


def _fill(network: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True)
    except (RuntimeError, AttributeError) as error:
        lines = str(error).strip().splitlines()
        finding = f"weights of another network ({textwrap.shorten(' '.join(lines[1:2] or lines), 160, placeholder=' ...')})"
        raise Fault(path, finding, "name the weights of this network") from None
    if not is_finite(network):
        raise Fault(path, "holds weights that are NaN or infinite", "train again or restore the file")
