"""Many cases in several processes of this machine, each with the model loaded once."""

from __future__ import annotations

import _thread
import functools
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

import torch

from hftn_sr._version import __version__
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.inference.batch import Models, attempt, lasting_models, use_threads
from hftn_sr.inference.case import Case, Outcome
from hftn_sr.inference.memory import available, limit_memory
from hftn_sr.inference.options import RunOptions
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.run import remove_leftovers

__all__ = ["DEATHS", "Job", "check_workers", "lost", "run_in_processes", "run_one"]

DEATHS = 3  # of its worker, after which a case is given up
PARTING = 3.0  # seconds that a worker has to drop its case
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Job:
    """What a worker is told besides its case.

    Args:
        options: options of the run.
        reporter: listener in the worker's process.
        strict: whether an error of a case ends the run.
        threads: CPU threads, of a worker or of all that share a machine; None leaves PyTorch's choice.
        patience: seconds to wait for another run that writes the same output.
        witness: file in the folder of the results, by which a worker sees that it is the same folder; None for none.
        version: of the program that gives the job.
    """

    options: RunOptions
    reporter: Reporter = field(default_factory=Reporter)
    strict: bool = False
    threads: int | None = None
    patience: float = 10.0
    witness: Path | None = None
    version: str = __version__


_models: Callable[[str, str], Models] = functools.lru_cache(maxsize=1)(lasting_models)  # of this process, from case to case
_at_a_time = threading.Lock()  # a case is given all memory and all threads of its process


def run_one(case: Case, job: Job) -> Outcome:
    """Run one case in a worker. The model stays loaded for the next one.

    Raises:
        Fault: this worker cannot work for the job, whatever the case.
        Exception: with `job.strict`, whatever the case raises.
    """
    if job.version != __version__:
        finding = f"has hftn-sr {__version__}, the job comes from {job.version}"
        raise Fault(f"worker {_name()}", finding, "install the same version everywhere")
    if job.witness and not job.witness.exists():
        raise Fault(job.witness.parent, f"worker {_name()} sees another folder there", "give --output a folder that all workers share")
    with _at_a_time:
        use_threads(job.threads)
        return attempt(case, job.options, _models(job.options.model, job.options.device), job.reporter, job.strict, job.patience)


def _name() -> str:
    return f"{os.uname().nodename if hasattr(os, 'uname') else 'here'}:{os.getpid()}"


def check_workers(workers: int, device: str) -> None:
    """Refuse more workers than there are devices.

    Raises:
        UsageFault: the network runs on CUDA, and there are fewer devices than workers.
    """
    if torch.device(device).type == "cuda" and workers > torch.cuda.device_count():
        count = torch.cuda.device_count()
        finding = f"{workers} workers and {count} CUDA device{'s' if count > 1 else ''}, of which each worker needs one"
        raise UsageFault("--workers", finding, f"--workers {count}, or --device cpu")


def run_in_processes(cases: Sequence[Case], job: Job, workers: int, reporter: Reporter) -> Generator[Outcome, None, None]:
    """Run cases in so many processes at a time. CPU threads and free memory are divided, and each worker has a CUDA device of its own.

    A worker that dies is replaced, and its case run again.

    Args:
        cases: cases to run.
        job: what each worker is told.
        workers: number of processes.
        reporter: hears what happens to workers.

    Yields:
        the outcome of each case, as soon as it is over.
    """
    memory = available()
    share = None if memory is None else memory // workers
    job = replace(job, threads=max(1, (job.threads or torch.get_num_threads()) // workers))
    devices = _devices() if torch.device(job.options.device).type == "cuda" else None
    context = get_context("spawn")  # fork would copy a process that has threads
    told, ends_with_this = context.Pipe(duplex=False)

    def worker(number: int) -> ProcessPoolExecutor:  # one process each: it is known which case died with it
        return ProcessPoolExecutor(1, context, _begin, (told, share, devices[number] if devices else None))

    pools = [worker(number) for number in range(min(workers, len(cases)))]
    idle, waiting = list(range(len(pools))), deque(cases)
    running: dict[Future[Outcome], tuple[int, Case]] = {}
    deaths: Counter[Path] = Counter()

    def occupy() -> None:
        while waiting and idle:
            number, case = idle.pop(), waiting.popleft()
            running[pools[number].submit(_run_until_told, case, job)] = number, case

    try:
        occupy()
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, case = running.pop(future)
                idle.append(number)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    pools[number].shutdown(wait=False)
                    pools[number] = worker(number)
                    deaths[case.output] += 1
                    if deaths[case.output] < DEATHS:
                        reporter.log(f"{case.name}: its worker process ended; another one begins it again")
                        waiting.appendleft(case)
                        occupy()
                        continue
                    outcome = lost(case, f"its worker process ended {DEATHS} times")
                occupy()  # before the outcome is written down: the worker need not wait for that
                yield outcome
    finally:
        ends_with_this.close()
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)


def lost(case: Case, finding: str) -> Outcome:
    """The outcome of a case whose workers died, as those do that take more memory than there is; nothing is left of it."""
    remove_leftovers(case.output)
    fix = "try it alone, with fewer workers or on a machine with more memory"
    return Outcome(case.name, "failed", case.output, str(Fault(case.target, finding, fix)))


def _devices() -> list[str]:
    """The CUDA devices that this process may use, as the variable names them."""
    named = os.environ.get(VISIBLE, "")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


_busy = False  # whether this process, a worker, is within a case


def _begin(told: Connection, memory: int | None, device: str | None) -> None:
    """Prepare a worker's process."""
    if device is not None:
        os.environ[VISIBLE] = device  # before CUDA is touched
    limit_memory(memory)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupt)
    threading.Thread(target=_end_with, args=(told,), daemon=True).start()


def _interrupt(_: int, __: FrameType | None) -> None:
    if _busy:
        raise KeyboardInterrupt


def _end_with(told: Connection) -> None:
    """End this worker soon after the run has ended or its process has died: then the other end of the pipe is closed."""
    try:
        told.recv()
    except (EOFError, OSError):
        _thread.interrupt_main()
        time.sleep(PARTING)
        os._exit(1)


def _run_until_told(case: Case, job: Job) -> Outcome:
    """`run_one` in a worker's process. Where it is told to end, the case is dropped whole and the process ends."""
    global _busy
    try:
        _busy = True
        return run_one(case, job)
    except KeyboardInterrupt:
        os._exit(1)  # Python would take a second or more to end, and the run waits for it
    finally:
        _busy = False
