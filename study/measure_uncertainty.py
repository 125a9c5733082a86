"""Calibrate an uncertainty head, and measure how well it tells the errors of results.

python study/measure_uncertainty.py --data data --head runs/uncertainty/best.safetensors --output bundle/models/uncertainty.safetensors
python study/measure_uncertainty.py --data data --section testing

Targets are simulated from whole slices, as magnitudes; each result is that of `super-resolve` by default: its test-time augmentation, with
what was measured put back. Voxels count whose interpolated target is above a tenth of the intensity unit. Without `--output` the shipped
head is measured as it is calibrated. Tables: coverage of the 90 % interval by patient, with the calibration by the other patients
(`left out`) and with that of the file; calibration error: mean over tenths of the voxels by estimate of |mean error - mean estimate|, as a
share of the mean error; AUSE: area between the sparsification curves by estimate and by true error, as a share of the mean error (0 is
perfect; random order has AUSE of its own, given beside it).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from hftn_sr.inference.uncertainty import FILE, Calibration, Kind, load_head, save_head
from hftn_sr.networks.precision import choose_tta, prepare_network
from hftn_sr.networks.uncertainty import UncertaintyHead, head_input
from hftn_sr.networks.weights import MODELS_FOLDER, Model, list_hashes, load_model, shipped_names
from hftn_sr.pairs.datalist import workflow_datalist
from hftn_sr.training.acquisitions import VALIDATED
from hftn_sr.training.transforms import AcquirePaird, LoadPaird
from hftn_sr.training.uncertainty import restored
from hftn_sr.volumes.files import write_bytes, write_json

TISSUE = 0.1
COVERAGE = 0.9
VOXELS = 20_000  # kept of each slice
SPREAD = 3.0  # standard deviations of the logarithm of a case's mean that count as usual
OTHERS = ("x1.6", "x3", "1x4", "2x4", "slices_4x1", "slices_1x4", "slices_6x1")  # of weights for any acquisition

Errors = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """A result beside the truth.

    Args:
        model: name of the weights.
        acquisition: key of VALIDATED.
        case: of the datalist.
        image: (3, H, W), the network's input.
        result: (H, W).
        label: (H, W), the truth.
    """

    model: str
    acquisition: str
    case: str
    image: Tensor
    result: Tensor
    label: Tensor


@dataclass(frozen=True)
class Sample:
    """Voxels of a result.

    Args:
        model: name of the weights.
        kind: see `Calibration`.
        acquisition: name.
        patient: whose.
        case: of the datalist.
        error: (N,), absolute errors, intensities around 0 to 1.
        scale: (N,), the head's b.
        mean: of b over all of the tissue.
    """

    model: str
    kind: Kind
    acquisition: str
    patient: str
    case: str
    error: Errors
    scale: Errors
    mean: float


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with datalist.json")
    parser.add_argument("--section", default="validation")
    parser.add_argument("--cases", nargs="*", help="of the section; all if not given")
    parser.add_argument("--networks", nargs="*", default=["small", "base", "correspondence"])
    parser.add_argument("--head", type=Path, help="what training wrote; the shipped head if not given")
    parser.add_argument("--slices", type=int, default=2, help="of each case")
    parser.add_argument("--results", type=Path, nargs="*", help="files that keep the networks' results, for another head; made if missing")
    parser.add_argument("--output", type=Path, help="file for the calibrated head")
    parser.add_argument("--json", type=Path, help="file for the tables")
    given = parser.parse_args()
    head, record = _head(given.head)
    cases: list[dict[Hashable, Any]] = [
        dict(case.items()) for case in workflow_datalist(str(given.data), given.section) if not given.cases or case["case"] in given.cases
    ]
    models = [load_model(name, scale) for name in given.networks for scale in (2, 4, None) if scale or name in shipped_names(None)]
    results = [Result(**each) for path in given.results or () if path.is_file() for each in torch.load(path, weights_only=True)]
    if not results:
        results = list(_results(models, cases, given.slices))
        if given.results:
            torch.save([vars(result) for result in results], given.results[0])
    rng = np.random.default_rng(0)
    samples = [judged(head, result, rng) for result in results if result.model in {model.name for model in models}]
    groups: dict[tuple[str, Kind], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.model, sample.kind].append(sample)
    by_name = {model.name: model for model in models}
    found = [calibrate(of, by_name[name].sha256, _passes(name, kind)) for (name, kind), of in groups.items()]
    if given.output:
        write_bytes(given.output, save_head(head, found, record))
        if given.output.absolute() == MODELS_FOLDER / FILE:
            list_hashes(FILE)
    shipped = found if given.head or given.output else list(load_head(MODELS_FOLDER / "base_x2.safetensors").calibrations)
    table = [row for (name, kind), of in groups.items() for row in rows(of, next(c for c in shipped if (c.model, c.kind) == (name, kind)))]
    for row in table:
        sys.stdout.write("| " + " | ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()) + " |\n")
    if given.json:
        write_json(given.json, {"section": given.section, "rows": table})


def _head(path: Path | None) -> tuple[UncertaintyHead, dict[str, object]]:
    """A trained head and its record; the shipped ones for None."""
    if path is None:
        shipped = load_head(MODELS_FOLDER / "base_x2.safetensors")
        return shipped.network, shipped.record
    head = UncertaintyHead()
    head.load_state_dict(safetensors.torch.load_file(path))
    with safetensors.safe_open(path, "pt") as opened:
        return head.eval(), json.loads(opened.metadata()["record"])


def _kind(acquisition: str) -> Kind:
    return "slices" if acquisition.startswith("slices") else "kspace"


def _passes(model: str, kind: Kind) -> int:
    """Of `super-resolve`, which makes slices thinner in one pass."""
    return 1 if kind == "slices" else choose_tta(None, model.split()[0])


def _results(models: Sequence[Model], cases: Sequence[dict[Hashable, Any]], count: int) -> Iterator[Result]:
    load = LoadPaird(None)
    kinds: tuple[Kind, ...] = ("kspace", "slices")
    networks = {
        (model.name, kind): prepare_network(model.network, "float32", _passes(model.name, kind)) for model in models for kind in kinds
    }
    for case in cases:
        images = load(case)
        signal = images["label"].flatten(0, 2).mean(0)
        rich = torch.nonzero(signal > 0.3 * signal.max())[:, 0].tolist()
        for share in 0.2 + 0.6 * (np.arange(count) + 0.5) / count:
            flat: dict[Hashable, Tensor] = {key: images[key][..., rich[int(len(rich) * share)]] for key in ("label", "reference")}
            for model in models:
                names = (f"x{model.scale}",) if model.scale else OTHERS
                for name in names:
                    yield _result(networks[model.name, _kind(name)], model.name, name, case["case"], flat)
        sys.stderr.write(f"{case['case']}\n")


def _result(network: torch.nn.Module, model: str, name: str, case: str, flat: dict[Hashable, Tensor]) -> Result:
    acquisition = VALIDATED[name](flat["label"].shape[-2:])
    made = AcquirePaird(acquisition, magnitude=True)(flat)
    result = restored(network, made["image"], made["measured"][0], acquisition)
    return Result(model, name, case, made["image"], result, made["label"][0])


def judged(head: UncertaintyHead, result: Result, rng: np.random.Generator) -> Sample:
    """What a head says of a result, and its errors."""
    acquisition = VALIDATED[result.acquisition](result.result.shape)
    image = result.image.float()
    with torch.inference_mode():
        scale = head(head_input(image, result.result.float(), acquisition)[None])[0, 0].exp()
    tissue = image[0] > TISSUE
    error, of = (each[tissue].double().numpy() for each in ((result.label.float() - result.result.float()).abs(), scale))
    kept = rng.permutation(len(error))[:VOXELS]
    kind = _kind(result.acquisition)
    patient, mean = re.split(r"_", result.case)[0], float(of.mean())
    return Sample(result.model, kind, result.acquisition, patient, result.case, error[kept], of[kept], mean)


def calibrate(samples: Sequence[Sample], sha256: str, tta: int) -> Calibration:
    """The calibration by these samples, of one set of weights and one kind; each patient counts the same."""
    factor, interval = fitted(samples)
    means = np.log([factor * np.mean([sample.mean for sample in of]) for of in _by(samples, "case", "acquisition").values()])
    low, high = (float(f"{np.exp(means.mean() + sign * SPREAD * means.std()):.4g}") for sign in (-1, 1))
    patients = tuple(sorted({sample.patient for sample in samples}))
    first = samples[0]
    return Calibration(first.model, sha256, first.kind, tta, float(f"{factor:.4g}"), float(f"{interval:.4g}"), low, high, patients)


def fitted(samples: Sequence[Sample]) -> tuple[float, float]:
    """Factor that makes the mean estimate the mean error, and multiple of the estimate that holds 90 % of every patient's errors."""
    of_patients = list(_by(samples, "patient").values())
    ratios = [_joined(of, "error").sum() / _joined(of, "scale").sum() for of in of_patients]
    factor = float(np.mean(ratios))
    return factor, max(float(np.quantile(_joined(of, "error") / (factor * _joined(of, "scale")), COVERAGE)) for of in of_patients)


def rows(samples: Sequence[Sample], calibration: Calibration) -> Iterator[dict[str, object]]:
    """A row for each patient."""
    of_patients = _by(samples, "patient")
    for (patient,), of in of_patients.items():
        others = [sample for sample in samples if sample.patient != patient]
        left_out = covered(of, *fitted(others)) if others else None
        error, scale = _joined(of, "error"), _joined(of, "scale")
        yield {
            "weights": calibration.model,
            "kind": calibration.kind,
            "patient": patient,
            "mean error, %": 100 * float(error.mean()),
            "mean estimate, %": 100 * calibration.factor * float(scale.mean()),
            "coverage": covered(of, calibration.factor, calibration.interval),
            "coverage, left out": left_out,
            "calibration error": calibration_error(error, calibration.factor * scale),
            "AUSE": ause(error, scale),
            "AUSE, random": ause(error, np.random.default_rng(0).permutation(len(error)).astype(float)),
        }


def covered(samples: Sequence[Sample], factor: float, interval: float) -> float:
    """Share of the errors within `interval` times the estimate."""
    return float(np.mean(_joined(samples, "error") <= interval * factor * _joined(samples, "scale")))


def calibration_error(error: Errors, estimate: Errors, bins: int = 10) -> float:
    """Mean over `bins` equal parts of the voxels, by estimate, of the distance of mean error and mean estimate, as a share of the error."""
    parts = np.array_split(np.argsort(estimate), bins)
    return float(np.mean([abs(error[part].mean() - estimate[part].mean()) for part in parts]) / error.mean())


def ause(error: Errors, estimate: Errors, steps: int = 50) -> float:
    """Area under the sparsification error, a share of the mean error. Source: Ilg et al. 2018, arXiv 1802.07095."""

    def curve(order: NDArray[np.int64]) -> Errors:  # mean error of what is left when the first voxels of the order are gone
        left = np.cumsum(error[order][::-1])[::-1] / np.arange(len(error), 0, -1)
        return np.asarray(left[(np.arange(steps) / steps * len(error)).astype(int)])

    return float((curve(np.argsort(-estimate)) - curve(np.argsort(-error))).mean() / error.mean())


def _by(samples: Sequence[Sample], *names: str) -> dict[tuple[str, ...], list[Sample]]:
    groups: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[tuple(getattr(sample, name) for name in names)].append(sample)
    return groups


def _joined(samples: Sequence[Sample], name: str) -> Errors:
    return np.concatenate([getattr(sample, name) for sample in samples])


if __name__ == "__main__":
    main()
