"""What a run depends on: its random states, its checkpoints, and a loss that is a number."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
import torch
from filelock import FileLock, Timeout
from ignite.engine import Engine, Events
from monai.data import set_rnd
from monai.utils import set_determinism
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hftn_sr.errors import Fault, UsageFault, differences, end_in_one_line
from hftn_sr.networks import network_name
from hftn_sr.networks.weights import described_weights, is_finite, save_weights
from hftn_sr.volumes.files import write_bytes

__all__ = ["Checkpoint", "ReleaseCase", "ReseedEveryEpoch", "StopAtNonFiniteLoss", "read_checkpoint"]

CASES = ("training", "validation")  # of the record
LOCK = ".training.lock"  # the Label app has one of its own, which it holds from before it writes the data
PATIENCE = 10.0  # seconds that a training waits for another's lock: one whose parent was killed lives on for a moment
ANEW = "move it and best.safetensors away to begin this training anew"


class _Stateful(Protocol):
    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


class ReseedEveryEpoch:
    """Begin each epoch with random states that follow from the seed and the epoch alone, so that a resumed run repeats an unbroken one.

    Of several processes each draws its own: the seed also follows from the rank, that of rank 0 being the one of a single process.

    Args:
        seed: of the whole run.
        dataset: whose random transforms are seeded.
    """

    def __init__(self, seed: int, dataset: Any) -> None:
        self.seed, self.dataset = seed, dataset

    def attach(self, engine: Engine) -> None:
        """Act before an epoch draws its data."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed torch, NumPy, Python and the transforms."""
        seed = (self.seed * 1_000_003 + idist.get_rank() * 500_009 + engine.state.epoch) % 2**32
        set_determinism(seed)
        set_rnd(self.dataset, seed)


class StopAtNonFiniteLoss:
    """End a run whose loss is no longer a number, before the next checkpoint can store it."""

    def attach(self, engine: Engine) -> None:
        """Act after each iteration."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Raises FloatingPointError, naming the cases of the batch."""
        loss = engine.state.output["loss"] if isinstance(engine.state.output, dict) else engine.state.output[0]["loss"]
        if not torch.isfinite(torch.as_tensor(loss)).all():
            cases = sorted(set(engine.state.batch.get("case", ["unknown"])))
            raise FloatingPointError(f"loss {loss} in epoch {engine.state.epoch}, iteration {engine.state.iteration}, cases {cases}")


class Checkpoint:
    """Save the state of a run after every epoch and go on from it; keep the weights of the best validation score.

    `latest.pt` holds everything that the next epoch depends on; `best.safetensors` is ready for `hftn-sr super-resolve --model`. Both are
    replaced in one step: whenever the process dies, a complete file is there. Weights that are no longer finite are not saved, those that
    lie there without their `latest.pt` are not replaced, and no second run writes into the folder while one lasts.

    Of several processes all resume and the main one saves.

    Args:
        folder: where the two files lie; made if missing.
        network: what is trained, perhaps wrapped for several processes; the files know nothing of the wrapping.
        optimizer: its state goes into `latest.pt`.
        scheduler: likewise.
        evaluator: validation engine with a key metric; larger is better.
        record: what `best.safetensors` says of its training, besides epoch and score. A run goes on only where it is the same, and its
            network, optimizer and schedule are, but for its cases: some may have come or gone, and `training` then names all that were
            seen. None of these may validate now.
    """

    def __init__(
        self, folder: Path | str, network: nn.Module, optimizer: _Stateful, scheduler: _Stateful, evaluator: Any, record: dict[str, Any]
    ) -> None:
        with end_in_one_line():
            if not str(folder):  # as of a variable that is not set; it would be the current folder
                raise UsageFault("--output_dir", "no folder is named", "--output_dir runs/mine")
        self.latest, self.best = Path(folder) / "latest.pt", Path(folder) / "best.safetensors"
        self.network, self.record = network.module if isinstance(network, DistributedDataParallel) else network, record
        self.parts: dict[str, _Stateful] = {"network": self.network, "optimizer": optimizer, "scheduler": scheduler}
        self.evaluator = evaluator
        self.best_score = float("-inf")
        self.lock = FileLock(Path(folder) / LOCK, thread_local=False, is_singleton=True)  # a run does not keep out its own process

    def attach(self, engine: Engine) -> None:
        """Resume when the run starts, save when an epoch ends. Attach after the handler that validates."""
        engine.add_event_handler(Events.STARTED, self.hold)
        engine.add_event_handler(Events.STARTED, self.resume)
        engine.add_event_handler(Events.COMPLETED, self.release)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.give_up)
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def hold(self, engine: Engine) -> None:
        """Keep other runs off the folder; where one writes there, the process ends with one line. The lock dies with its process."""
        fault = self._acquire(engine) if idist.get_rank() == 0 else None
        # All wait for the main process: none may read what an earlier run is still writing, and none may train without it.
        in_the_way = idist.broadcast(float(fault is not None), src=0)
        with end_in_one_line():
            if fault:
                raise fault
        if in_the_way:
            raise SystemExit(Fault.exit_code)

    def _acquire(self, engine: Engine) -> Fault | None:
        """What is in the way."""
        folder = self.latest.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=PATIENCE)
        except Timeout:
            cure = "wait for it to end, restart the notebook in which it was stopped, or name another --output_dir"
            return Fault(folder, "another training is writing into this folder", cure)
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            return Fault(folder, f"nothing can be written here ({error.strerror})", "name another --output_dir")
        except (OSError, NotImplementedError) as error:  # a file system without locks
            engine.logger.warning(f"{folder}: cannot be locked ({error}); see to it that no other training writes there")
        return None

    def release(self, engine: Engine) -> None:
        """Let other runs in. The file stays: whoever waits for it has it open."""
        self.lock.release(force=True)

    def give_up(self, engine: Engine, error: BaseException) -> None:
        """Let other runs in after a failure or refusal, which goes on its way."""
        self.release(engine)
        raise error

    def resume(self, engine: Engine) -> None:
        """Restore `latest.pt` where it exists; where it is damaged or of another run, the process ends with one line."""
        with end_in_one_line():
            if not self.latest.is_file():
                self._check_nothing_is_lost()
                return
            state = read_checkpoint(self.latest)
            self._check_same_run(state["run"])
        validated = state["run"].get("validation") == self.record.get("validation")
        if "training" in self.record:
            self.record["training"] = sorted({*self.record["training"], *state["run"].get("training", ())})
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        self.best_score = state["best_score"] if validated else float("-inf")  # of other volumes
        if engine.state.epoch == engine.state.max_epochs and idist.get_rank() == 0:
            engine.logger.warning(f"{self.latest}: all {engine.state.epoch} epochs are done, nothing is left to train")

    def __call__(self, engine: Engine) -> None:
        """Save.

        Raises:
            FloatingPointError: a weight is no longer finite; both files stay as they are.
        """
        if not is_finite(self.network):
            cure = "begin another run with another --seed or a lower --learning_rate"
            raise FloatingPointError(f"weights that are not finite after epoch {engine.state.epoch}, of which nothing was saved; {cure}")
        metrics = self.evaluator.state.metrics
        score = metrics.get(self.evaluator.state.key_metric_name)
        if self.evaluator.state.epoch and score is not None and self._validated_now(engine) and score > self.best_score:
            self.best_score = float(score)
            progress = {"epoch": engine.state.epoch, "steps": engine.state.iteration, self.evaluator.state.key_metric_name: self.best_score}
            save_weights(self.best, self.network, {**self.record, **progress})
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"epoch": engine.state.epoch, "iteration": engine.state.iteration, "best_score": self.best_score, "run": self._run()}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(self.latest, buffer.getvalue())

    def _run(self) -> dict[str, Any]:
        """What tells this run from others."""
        optimizer, scheduler = self.parts["optimizer"], self.parts["scheduler"]
        parts = {"optimizer": type(optimizer).__name__, "schedule": type(scheduler).__name__}
        return {**self.record, **_named(self.network), **parts, "steps of the schedule": scheduler.state_dict().get("T_max")}

    def _check_nothing_is_lost(self) -> None:
        if self.best.exists() and not self._made_again():
            cure = "move it away to begin anew, put its latest.pt back to go on, or name another --output_dir"
            raise Fault(self.best, "weights of an earlier training, which a new one would replace", cure)

    def _made_again(self) -> bool:
        """Whether this run will write the same `best.safetensors`: one killed between its first two files leaves it without the other."""
        try:
            network, record = described_weights(self.best)
        except Fault:  # not weights of ours
            return False
        return record.get("epoch") == 1 and not _common({**record, **_named(network)}, json.loads(json.dumps(self._run())))

    def _check_same_run(self, earlier: dict[str, Any]) -> None:
        own = self._run()
        findings = _common(earlier, own, but=("start", *CASES))
        if own.get("start") != earlier.get("start"):
            findings.append("another start")  # whose record is long
        seen, training, validation = (set(cases) for cases in (earlier.get("training", ()), *(own.get(name, ()) for name in CASES)))
        if seen and not seen & training:
            findings.append("training cases of which none is listed now")
        elif moved := sorted((seen - training) & validation):
            findings.append(f"the training case {moved[0]}, which now validates")
        if findings:
            cure = "name another --output_dir, or give what that run was begun with to go on with it"
            raise Fault(self.latest, f"is of a run begun with {'; '.join(findings)}", cure)

    def _validated_now(self, engine: Engine) -> bool:
        return bool(self.evaluator.state.epoch == engine.state.epoch)


def _common(earlier: Mapping[str, Any], own: Mapping[str, Any], but: Iterable[str] = ()) -> list[str]:
    """What differs of that which both tell."""
    names = (own.keys() & earlier.keys()) - set(but)
    return differences({name: earlier[name] for name in names}, {name: own[name] for name in names})


def _named(network: nn.Module) -> dict[str, Any]:
    return {"network": network_name(network), **getattr(network, "options", {})}


class ReleaseCase:
    """Let go of a case before the next is read.

    An engine holds its batch and output until it has the next, so that two cases would be in memory when the second is read, and would
    count when it is checked against what is free.
    """

    def attach(self, engine: Engine) -> None:
        """Act when all is done that other handlers do after a case."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Forget batch and output."""
        engine.state.batch = engine.state.output = None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `Checkpoint` stored in a `latest.pt`.

    Raises:
        Fault: the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)  # never runs code from the file
        missing = {"network", "epoch", "iteration", "run"} - state.keys()
    except Exception as error:
        raise Fault(path, f"damaged checkpoint ({type(error).__name__})", ANEW) from error
    if missing:
        raise Fault(path, f"no checkpoint of a training (lacks {', '.join(sorted(missing))})", ANEW)
    return state
