"""State of a training: random states, checkpoints, and a stop at a loss that is not finite."""

from __future__ import annotations

import io
import json
import textwrap
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
import safetensors.torch
import torch
from filelock import FileLock, Timeout
from ignite.engine import Engine, Events
from monai.data import set_rnd
from monai.utils import set_determinism
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hftn_sr.errors import Fault, UsageFault, end_in_one_line
from hftn_sr.networks import NETWORKS
from hftn_sr.networks.weights import is_finite, save_weights
from hftn_sr.training.handlers.scores import has_cases
from hftn_sr.training.record import class_name, run_differences, training_record
from hftn_sr.volumes.files import write_bytes

__all__ = ["Checkpoint", "ReleaseCase", "ReseedEveryEpoch", "StopAtNonFiniteLoss", "read_checkpoint"]

CASES = ("training", "validation")  # of the record
LOCK = ".training.lock"  # the Label app holds a lock of its own from before it writes the data
PATIENCE = 10.0  # seconds to wait for the lock of another training: one whose parent was killed lives on for a moment
GO_ON = "name another --output_dir, or give the settings of that run to go on with it"
DIVERGED = "name another --output_dir and a lower --learning_rate and --adam_learning_rate, or another --seed"
ANEW = "move it and best.safetensors away to begin this training anew"


class _Stateful(Protocol):
    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


class ReseedEveryEpoch:
    """Seed each epoch by the run's seed and the epoch's number alone, so that a resumed run repeats an unbroken one.

    Several processes draw different data: the seed also depends on the rank. Rank 0 draws as a single process does.

    Args:
        seed: seed of the run.
        dataset: dataset with random transforms.
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
    """End a run whose loss is not finite, before a checkpoint can store its weights."""

    def attach(self, engine: Engine) -> None:
        """Act after each iteration."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Raise Fault with the cases of the batch."""
        loss = engine.state.output["loss"] if isinstance(engine.state.output, dict) else engine.state.output[0]["loss"]
        if not torch.isfinite(torch.as_tensor(loss)).all():
            cases = ", ".join(sorted(set(engine.state.batch.get("case", ["unknown"]))))
            finding = f"loss {float(loss)} in epoch {engine.state.epoch}, iteration {engine.state.iteration}, cases {cases}"
            raise Fault("training", finding, DIVERGED)


class Checkpoint:
    """Save the state of a run after every epoch and go on from it; keep the weights of the best validation score.

    `latest.pt` holds everything that the next epoch depends on; `best.safetensors` is ready for `hftn-sr super-resolve --model`. Without
    validation cases it holds the weights of the last epoch. Each is
    replaced in one step: a process that dies leaves a complete file. Weights that are not finite are never saved. Weights whose `latest.pt`
    is gone are never replaced. Only one run at a time writes into the folder.

    With several processes, all resume and the main one saves.

    A run goes on only from a checkpoint with the same record: network, loss, optimizer, schedule and transforms, see `training_record`.
    Cases may be added or removed; `training` then names all cases that were ever trained on, and none of them may be used for validation.

    Args:
        folder: output folder; made if missing.
        network: network in training, perhaps wrapped for several processes; the files hold the bare network.
        optimizer: optimizer, saved in `latest.pt`.
        scheduler: learning-rate schedule, saved in `latest.pt`.
        evaluator: validation engine with a key metric; larger is better.
        record: additions to `training_record`: seed, initial weights (`start`), names of the `training` and `validation` cases.
    """

    def __init__(
        self, folder: Path | str, network: nn.Module, optimizer: _Stateful, scheduler: _Stateful, evaluator: Any, record: dict[str, Any]
    ) -> None:
        with end_in_one_line():
            if not str(folder):  # an unset shell variable; it would be the current folder
                raise UsageFault("--output_dir", "no folder is named", "--output_dir runs/mine")
        self.latest, self.best = Path(folder) / "latest.pt", Path(folder) / "best.safetensors"
        self.network, self.record = network.module if isinstance(network, DistributedDataParallel) else network, record
        self.parts: dict[str, _Stateful] = {"network": self.network, "optimizer": optimizer, "scheduler": scheduler}
        self.evaluator = evaluator
        self.best_score = float("-inf")
        self.lock = FileLock(Path(folder) / LOCK, thread_local=False, is_singleton=True)  # a run does not lock out its own process

    def attach(self, engine: Engine) -> None:
        """Resume when the run starts and save when an epoch ends. Attach after the handler that validates."""
        engine.add_event_handler(Events.STARTED, self.hold)
        engine.add_event_handler(Events.STARTED, self.resume)
        engine.add_event_handler(Events.COMPLETED, self.release)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.give_up)
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def hold(self, engine: Engine) -> None:
        """Lock the folder. The process ends with one line if another run holds it. The lock dies with its process."""
        fault = self._acquire(engine) if idist.get_rank() == 0 else None
        # All processes wait for the main one: none may read what an earlier run is still writing, and none may train without it.
        in_the_way = idist.broadcast(float(fault is not None), src=0)
        with end_in_one_line():
            if fault:
                raise fault
        if in_the_way:
            raise SystemExit(Fault.exit_code)

    def _acquire(self, engine: Engine) -> Fault | None:
        """Lock the folder; the fault if that fails."""
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
            engine.logger.warning(f"{folder}: cannot be locked ({error}); make sure that no other training writes there")
        return None

    def release(self, engine: Engine) -> None:
        """Unlock the folder. The lock file stays: a run that waits for it has it open."""
        self.lock.release(force=True)

    def give_up(self, engine: Engine, error: BaseException) -> None:
        """Unlock the folder after a failure or refusal, and raise it again."""
        self.release(engine)
        raise error

    def resume(self, engine: Engine) -> None:
        """Restore `latest.pt` if it exists. The process ends with one line if it is damaged or belongs to another run."""
        self.record = training_record(engine, self.network, self.parts["optimizer"], self.parts["scheduler"]) | self.record
        with end_in_one_line():
            if not self.latest.is_file():
                self._check_nothing_is_lost()
                return
            state = read_checkpoint(self.latest)
            self._check_same_run(state["run"])
        validated = state["run"].get("validation") == self.record.get("validation")
        if "training" in self.record:
            self.record["training"] = sorted({*self.record["training"], *state["run"].get("training", ())})
        with end_in_one_line():
            self._restore(state)
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        self.best_score = state["best_score"] if validated else float("-inf")  # of other volumes
        if engine.state.epoch == engine.state.max_epochs and idist.get_rank() == 0:
            engine.logger.warning(f"{self.latest}: all {engine.state.epoch} epochs are done, nothing is left to train")

    def __call__(self, engine: Engine) -> None:
        """Save.

        Raises:
            Fault: a weight is no longer finite; both files stay as they are.
        """
        if not is_finite(self.network):
            raise Fault("training", f"the weights are not finite after epoch {engine.state.epoch}, nothing was saved", DIVERGED)
        metrics = self.evaluator.state.metrics
        score = metrics.get(self.evaluator.state.key_metric_name)
        if not has_cases(self.evaluator):
            _save(self.best, self.network, {**self.record, "epoch": engine.state.epoch, "steps": engine.state.iteration})
        elif self.evaluator.state.epoch and score is not None and self._validated_now(engine) and score > self.best_score:
            self.best_score = float(score)
            progress = {"epoch": engine.state.epoch, "steps": engine.state.iteration, self.evaluator.state.key_metric_name: self.best_score}
            _save(self.best, self.network, {**self.record, **progress})
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"epoch": engine.state.epoch, "iteration": engine.state.iteration, "best_score": self.best_score, "run": self.record}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(self.latest, buffer.getvalue())

    def _restore(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            try:
                part.load_state_dict(state[name])
            except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
                finding = f"is of a run with another {name} ({textwrap.shorten(str(error), 160, placeholder=' ...')})"
                raise Fault(self.latest, finding, GO_ON) from None

    def _check_nothing_is_lost(self) -> None:
        if self.best.exists() and not self._made_again():
            cure = "move it away to begin anew, put its latest.pt back to go on, or name another --output_dir"
            raise Fault(self.best, "weights of an earlier training, which a new one would replace", cure)

    def _made_again(self) -> bool:
        """Whether this run will write the same `best.safetensors`: a run killed in its first epoch may leave it without `latest.pt`."""
        try:
            with safetensors.safe_open(self.best, "pt") as file:
                record = json.loads((file.metadata() or {})["record"])
        except (safetensors.SafetensorError, OSError, KeyError, ValueError):  # weights of another program
            return False
        return record.get("epoch") == 1 and "network" in record and not run_differences(record, json.loads(json.dumps(self.record)))

    def _check_same_run(self, earlier: dict[str, Any]) -> None:
        findings = run_differences(earlier, self.record, leave_out=("start", *CASES))
        if self.record.get("start") != earlier.get("start"):
            findings.append("other initial weights")  # their record is long
        seen, training, validation = (set(cases) for cases in (earlier.get("training", ()), *(self.record.get(name, ()) for name in CASES)))
        if seen and not seen & training:
            findings.append("training cases of which none is listed now")
        elif moved := sorted((seen - training) & validation):
            findings.append(f"the training case {moved[0]}, which is now used for validation")
        if findings:
            raise Fault(self.latest, f"is of a run begun with {'; '.join(findings)}", GO_ON)

    def _validated_now(self, engine: Engine) -> bool:
        return bool(self.evaluator.state.epoch == engine.state.epoch)


def _save(path: Path, network: nn.Module, record: dict[str, Any]) -> None:
    """Write weights with their record. A network of the user's own cannot be built from its file; its class stands in the header."""
    if type(network) in NETWORKS.values():
        save_weights(path, network, record)
    else:
        tensors = {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, torch.Tensor)}
        state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}  # tied weights are stored twice
        metadata = {"network": class_name(network), "options": "{}", "record": json.dumps(record)}
        write_bytes(path, safetensors.torch.save(state, metadata))


class ReleaseCase:
    """Free a case before the next one is read.

    An engine holds its batch and output until it has the next ones. Two cases would then be in memory at a time, and the first would count
    as used when the second is checked against the free memory.
    """

    def attach(self, engine: Engine) -> None:
        """Act after the handlers of a case."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Drop batch and output."""
        engine.state.batch = engine.state.output = None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a `latest.pt` that `Checkpoint` stored.

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
