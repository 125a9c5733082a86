"""How much of a training's time is the network's: the workflow's steps against the bare loop of the same network on one batch.

python study/measure_training.py --data DIR
python study/measure_training.py --data DIR --scale 2 --crop-size 64 --method base --workers 1

Both run in one process and take turns, some steps of the workflow (an epoch) and as many of the loop, so that a machine that slows down
slows both; a share is the median of the rounds'. By process CPU time where the workflow prepares its data itself, else by wall time.
The loop is forward, backward and optimizer step with the workflow's own network, precision, loss and optimizer; the workflow adds drawing
and degrading the data, the engine and its handlers. Validation and checkpoints come between epochs and are not counted.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from hftn_sr._bundle import BUNDLE
from hftn_sr.volumes.files import write_json

TRAIN = BUNDLE / "configs" / "train.yaml"
FIRST_STEPS = 4  # of an epoch, not counted: workers have to start, and then have batches in store


@dataclass
class Rounds:
    """Seconds per step, one value a round.

    Args:
        workflow: of the workflow.
        bare: of the loop.
    """

    workflow: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Samples per second of the workflow over those of the loop."""
        return statistics.median(bare / workflow for bare, workflow in zip(self.bare, self.workflow, strict=True))


class Stopwatch:
    """Times the steps of each epoch after its first ones, and then as many of the loop; the first epoch warms up.

    Args:
        clock: in s.
        steps: of an epoch that count.
        loop: one step of the bare loop, on the workflow's last batch.
    """

    def __init__(self, clock: Callable[[], float], steps: int, loop: Callable[[Any], None]) -> None:
        self.clock, self.steps, self.loop = clock, steps, loop
        self.rounds, self.begun = Rounds(), 0.0

    def attach(self, engine: Engine) -> None:
        """Attach after all other handlers, whose time shall count."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Start after the first steps, stop after the last."""
        step = (engine.state.iteration - 1) % (FIRST_STEPS + self.steps) + 1
        if step == FIRST_STEPS:
            self.begun = self.clock()
        elif step == FIRST_STEPS + self.steps and engine.state.epoch > 1:
            self.rounds.workflow.append((self.clock() - self.begun) / self.steps)
            self.rounds.bare.append(self._time_loop(engine.state.batch))

    def _time_loop(self, batch: Any) -> float:
        begun = self.clock()
        for _ in range(self.steps):
            self.loop(batch)
        return (self.clock() - begun) / self.steps


def prepare_workflow(steps: int, rounds: int, cases: int, **options: Any) -> ConfigParser:
    """The training workflow on the first cases, with one epoch more than rounds and without validation."""
    parser = ConfigParser()
    parser.update(ConfigParser.load_config_file(TRAIN))
    epochs, epoch_cases = rounds + 1, (FIRST_STEPS + steps) * parser["cases_per_step"]
    parser.update({**options, "epochs": epochs, "epoch_cases": epoch_cases, "val_interval": epochs + 1, "threads": 1})
    for part, number in (("train", cases), ("validate", 1)):
        parser[f"{part}#cases"] = parser.get_parsed_content(f"{part}#cases")[:number]
    return parser


def measure(parser: ConfigParser, steps: int) -> tuple[Rounds, int]:
    """Run the workflow with the stopwatch; gives the rounds and the samples of a step."""
    network, optimizer, inferer, loss = (parser.get_parsed_content(name) for name in ("network", "optimizer", "train#inferer", "loss"))
    samples = parser["cases_per_step"] * parser["crops_per_slice"]

    def loop(batch: Any) -> None:
        optimizer.zero_grad()
        loss(inferer(batch["image"], network), batch["label"]).backward()
        optimizer.step()

    clock = time.perf_counter if parser["workers"] else time.process_time
    watch = Stopwatch(clock, steps, loop)
    watch.attach(parser.get_parsed_content("train#trainer"))
    parser.get_parsed_content("run")
    return watch.rounds, samples


def main(
    data: Annotated[Path, typer.Option(help="folder with a datalist.json")],
    scale: Annotated[int, typer.Option(help="2 or 4")] = 4,
    crop_size: Annotated[int, typer.Option(help="side of a crop in voxels")] = 96,
    method: Annotated[str, typer.Option(help="key of METHODS")] = "small",
    workers: Annotated[int, typer.Option(min=0, help="processes that prepare the data; 0 measures CPU time, others wall time")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="steps in a round")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="rounds")] = 5,
    cases: Annotated[int, typer.Option(min=1, help="training cases that are read")] = 8,
    output: Annotated[Path | None, typer.Option(help="JSON file for the rounds")] = None,
) -> None:
    """Measure and print a line."""
    options = {"dataset_dir": str(data), "scale": scale, "crop_size": crop_size, "method": method, "workers": workers}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found, samples = measure(prepare_workflow(steps, rounds, cases, output_dir=folder, **options), steps)
    workflow, bare = (statistics.median(times) for times in (found.workflow, found.bare))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    typer.echo(
        f"{method} x{scale}, crops of {crop_size}, {workers} workers: {1000 * workflow:.0f} ms a step, {samples / workflow:.1f} samples/s; "
        f"bare {1000 * bare:.0f} ms, {samples / bare:.1f} samples/s; share {found.share:.1%}; peak {peak:.0f} MB"
    )
    if output:
        write_json(output, {**options, "steps": steps, "share": found.share, "seconds": asdict(found)})


if __name__ == "__main__":
    typer.run(main)
