"""What `super-resolve` makes of wrong references and of lesions that one image alone shows; what its rules cost.

python study/measure_safety.py --data data --output safety --networks small --scales 4

Every reference is used as it lies, registered, and left out; the command's own choice is compared with the best of the three. Weights of
your own are named by their file: `--networks base,runs/x{}/best.safetensors`.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import torch
import typer
from rich.console import Console

from comparison.dataset import dataset_folder
from comparison.robustness import donors_of
from comparison.safety import Lesion, Scene, Treated, hftn_sr_scale, load_scene, measure_lesions, measure_references
from hftn_sr.errors import SCALES, UsageFault
from hftn_sr.networks.weights import Model, load_model, stand_in
from hftn_sr.pairs.datalist import Section, load_datalist
from hftn_sr.volumes.files import write_files

CASES = "longitudinal03_study1_T2_to_FLAIR,mni19_T2_to_FLAIR,mni19_T1_to_T2"  # validation patients: native, 1 mm, with contrast agent
DONORS = ("training", "validation")  # sections that the reference of another patient may come from


@dataclass(frozen=True)
class Found:
    """What was measured of a case at a scale."""

    case: str
    scale: str
    references: Sequence[Treated]
    lesions: Sequence[Lesion]


def main(
    data: Annotated[Path, typer.Option(help="Folder that `hftn-sr data open-ms` filled, or a copy of the open data.")],
    output: Annotated[Path, typer.Option(help="Folder for safety.md, references.csv and lesions.csv.")],
    networks: Annotated[
        str, typer.Option(help="Shipped names or .safetensors files, commas between; {} in a path stands for the scale.")
    ] = "base,small",
    scales: Annotated[str, typer.Option(help="As of super-resolve, commas between.")] = "2,4",
    cases: Annotated[str, typer.Option(help="Of the datalist, commas between.")] = CASES,
    slices: Annotated[int, typer.Option(help="Scored in the middle of each case.", min=1)] = 2,
    size: Annotated[int, typer.Option(help="In-plane voxels kept around the middle of each case; 0 for all.", min=0)] = 192,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
) -> None:
    """Measure, write the tables after each case, print them."""
    torch.set_num_threads(threads)
    console = Console(stderr=True)
    dataset = dataset_folder(data, output)
    sections: dict[str, list[Any]] = {section: load_datalist(dataset, section, may_be_empty=True) for section in get_args(Section)}
    listed = {str(case["case"]): case for of in sections.values() for case in of}
    found: list[Found] = []
    for name in cases.split(","):
        if name not in listed:
            raise UsageFault("--cases", f"no case {name} in the datalist", f"one of {', '.join(listed)}")
        others = [case for section in DONORS for case in sections[section] if _patient(case) != _patient(listed[name])]
        scene = load_scene(listed[name], donors_of([listed[name]], others)[name], slices, size)
        for scale in scales.split(","):
            console.print(f"{name}, x{scale}", markup=False, highlight=False)
            found.append(_measured(scene, scale, networks.split(","), console))
            write_files({output / file: content for file, content in _tables(found).items()})
    typer.echo(_tables(found)["safety.md"].decode())


def _patient(case: Mapping[Hashable, Any]) -> str:
    return str(case["case"]).partition("_")[0]


def _measured(scene: Scene, scale: str, networks: Iterable[str], console: Console) -> Found:
    models = {Path(name).stem: _model(name, scale) for name in networks}
    references, lesions = [], []
    with tempfile.TemporaryDirectory() as folder:
        for treated in measure_references(scene, scale, models, Path(folder)):
            references.append(treated)
            gains = "; ".join(f"{name} {', '.join(f'{way} {gain:.2f}' for way, gain in of.items())}" for name, of in treated.gains.items())
            seen = f"seen {treated.displacement:.2f} px off, agreement {treated.agreement:.2f}"
            console.print(f"  {treated.name}: {treated.chosen} ({seen}); dB: {gains}", markup=False, highlight=False, soft_wrap=True)
        for lesion in measure_lesions(scene, scale, models, Path(folder)):
            lesions.append(lesion)
            shares = "; ".join(f"{name} {100 * np.mean(of):.0f} %" for name, of in lesion.shares.items())
            text = f"  in the {lesion.where}, {lesion.diameter:g} px, {lesion.sign:+d}: {shares}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    return Found(scene.name, scale, references, lesions)


def _model(name: str, scale: str) -> Model:
    both = hftn_sr_scale(scale)
    whole = next((each for each in SCALES if both == (each, each)), None)
    return load_model(stand_in(name.replace("{}", scale), whole), whole)


# Tables


def _tables(found: Sequence[Found]) -> dict[str, bytes]:
    lines = [*_reference_lines(found), "", *_lesion_lines(found), "", *_cost_lines(found), ""]
    return {
        "references.csv": _csv(_reference_rows(found)),
        "lesions.csv": _csv(_lesion_rows(found)),
        "safety.md": "\n".join(lines).encode(),
    }


def _csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    text, listed = io.StringIO(), list(rows)
    writer = csv.DictWriter(text, list(listed[0]))
    writer.writeheader()
    writer.writerows(listed)
    return text.getvalue().encode()


def cost(treated: Treated, network: str) -> float:
    """What the command's choice costs against the best, in dB."""
    gains = treated.gains[network]
    return max(gains.values()) - gains[treated.chosen]


def _reference_rows(found: Sequence[Found]) -> Iterator[dict[str, Any]]:
    for each in found:
        for treated in each.references:
            for network, gains in treated.gains.items():
                yield {
                    "case": each.case, "scale": each.scale, "network": network, "reference": treated.name, "by_default": treated.chosen,
                    **{way.replace(" ", "_"): f"{gains[way]:.3f}" if way in gains else "" for way in ("used", "registered", "left out")},
                    "cost": f"{cost(treated, network):.3f}", "displacement_px": f"{treated.displacement:.2f}",
                    "agreement": f"{treated.agreement:.3f}", "warnings": len(treated.warnings), "warning": "; ".join(treated.warnings),
                }  # fmt: skip


def _lesion_rows(found: Sequence[Found]) -> Iterator[dict[str, Any]]:
    for each in found:
        for lesion in each.lesions:
            for network, shares in lesion.shares.items():
                yield {
                    "case": each.case, "scale": each.scale, "network": network, "in": lesion.where, "diameter_px": lesion.diameter,
                    "sign": "bright" if lesion.sign > 0 else "dark", "lesions": len(shares), "share_mean": f"{np.mean(shares):.3f}",
                    "share_least": f"{min(shares):.3f}", "share_most": f"{max(shares):.3f}", "by_default": lesion.chosen,
                    "warnings": len(lesion.warnings), "warning": "; ".join(lesion.warnings),
                }  # fmt: skip


def _reference_lines(found: Sequence[Found]) -> Iterator[str]:
    """Mean over cases: gain as it lies and by default, and what was done."""
    columns = [(network, scale) for scale in dict.fromkeys(each.scale for each in found) for network in found[0].references[0].gains]
    yield "Gain over zero-filling in dB, mean over cases: used as it lies / by default."
    yield ""
    yield f"| reference | {' | '.join(f'{network} x{scale}' for network, scale in columns)} | done by default | warned |"
    yield f"| --- |{' ---: |' * len(columns)} --- | ---: |"
    for name in dict.fromkeys(treated.name for each in found for treated in each.references):
        of = [(each.scale, treated) for each in found for treated in each.references if treated.name == name]
        cells = []
        for network, scale in columns:
            gains = [(treated.gains[network], treated.chosen) for own, treated in of if own == scale]
            lies, default = (np.mean([g.get(w or c, g["left out"]) for g, c in gains]) for w in ("used", None))
            cells.append(f"{default:.2f}" if name == "none" else f"{lies:.2f} / {default:.2f}")
        done = dict.fromkeys(treated.chosen for _, treated in of)
        counts = ", ".join(f"{way} {sum(treated.chosen == way for _, treated in of)}" for way in done)
        warned = sum(bool(treated.warnings) for _, treated in of)
        yield f"| {name} | {' | '.join(cells)} | {counts} | {warned} of {len(of)} |"


def _lesion_lines(found: Sequence[Found]) -> Iterator[str]:
    """Mean over all lesions in percent, and the extreme one."""
    networks = list(found[0].lesions[0].shares)
    scales = list(dict.fromkeys(each.scale for each in found))
    yield "Share of a lesion's contrast in the result in percent, mean (least to most) over all places; by default."
    yield ""
    yield f"| lesion | {' | '.join(f'{network} x{scale}' for scale in scales for network in networks)} | warned |"
    yield f"| --- |{' ---: |' * len(networks) * len(scales)} ---: |"
    kinds = dict.fromkeys((lesion.where, lesion.diameter, lesion.sign) for each in found for lesion in each.lesions)
    for kind in kinds:
        of = [(each.scale, lesion) for each in found for lesion in each.lesions if lesion[:3] == kind]
        cells = []
        for scale in scales:
            for network in networks:
                shares = [100 * share for own, lesion in of if own == scale for share in lesion.shares.get(network, [])]
                mean, least, most = (round(float(each)) for each in (np.mean(shares), min(shares), max(shares))) if shares else (0, 0, 0)
                cells.append(f"{mean} ({least} to {most})" if shares else "")
        where, diameter, sign = kind
        size = f", {diameter:g} px, {'bright' if sign > 0 else 'dark'}" if diameter else " of the reference after contrast agent"
        text = f"in the {where} only{size}" if diameter else f"{where}{size}"
        yield f"| {text} | {' | '.join(cells)} | {sum(bool(lesion.warnings) for _, lesion in of)} of {len(of)} |"


def _cost_lines(found: Sequence[Found]) -> Iterator[str]:
    """What each rule costs: over the references on which it acted, and spread over the whole table."""
    networks = list(found[0].references[0].gains)
    scales = list(dict.fromkeys(each.scale for each in found))
    yield "What the command's choice costs against the best of the three in dB: mean over the references that it treats so (their number)."
    yield ""
    yield f"| choice | {' | '.join(f'{network} x{scale}' for scale in scales for network in networks)} |"
    yield f"| --- |{' ---: |' * len(networks) * len(scales)}"
    for choice in ("used", "registered", "left out", "all"):
        cells = []
        for scale in scales:
            of = [treated for each in found if each.scale == scale for treated in each.references if treated.name != "none"]
            treated_so = [treated for treated in of if choice in (treated.chosen, "all")]
            cells += [
                f"{np.mean([cost(t, network) for t in treated_so]):.3f} ({len(treated_so)})" if treated_so else "" for network in networks
            ]
        yield f"| {choice} | {' | '.join(cells)} |"


if __name__ == "__main__":
    typer.run(main)
