"""Many cases on a Dask cluster. Dask keeps the queue, sends cases to workers and sends those of a lost worker again."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hftn_sr.errors import Fault, UsageFault
from hftn_sr.inference.case import Case, Outcome
from hftn_sr.inference.memory import limit_memory, reuse_freed_memory
from hftn_sr.inference.workers import Job, lost, run_one

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Cluster"]

Answer = TypeVar("Answer")
AHEAD = 10_000  # cases that the scheduler is told of at a time
PATIENCE = 3600.0  # seconds that a worker waits for one that still writes the same output: its client may be gone
REACH = 20  # seconds for the scheduler to answer


class Cluster:
    """A running Dask cluster, to be used as a context.

    Args:
        scheduler: address such as tcp://host:8786, or the .json file that `dask scheduler --scheduler-file` writes.

    Raises:
        UsageFault: Dask is not installed, or workers run several cases in one process.
        Fault: no scheduler answers, or there is no such file.
    """

    def __init__(self, scheduler: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise UsageFault("--scheduler", "needs Dask, which is not installed", "pip install 'hftn-sr[cluster]'") from None
        self.scheduler, is_file = scheduler, scheduler.endswith(".json")
        if is_file and not Path(scheduler).is_file():  # Dask would wait for it
            raise Fault(scheduler, "no such file", f"start one: dask scheduler --scheduler-file {scheduler}")
        place = {"scheduler_file": scheduler} if is_file else {"address": scheduler}
        try:
            self._client: Client = Client(**place, timeout=REACH, set_as_default=False)
        except (OSError, ValueError) as error:
            raise Fault(
                scheduler, f"no Dask scheduler answers ({type(error).__name__})", "start one: dask scheduler --port 8786"
            ) from error
        wide = [f"{name} runs {count}" for name, count in self._client.nthreads().items() if count > 1]
        if wide:
            self._client.close()
            finding = f"{len(wide)} workers run several cases in one process ({wide[0]})"
            raise UsageFault("--scheduler", finding, "start them by dask worker --nworkers 8 --nthreads 1")
        # workers that are there load the program now, all at the same time; others with their first case
        self._loading = [
            self._client.submit(_load, pure=False, workers=[worker], allow_other_workers=True) for worker in self._client.nthreads()
        ]

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close(timeout=2)

    def workers(self) -> int:
        """Number of workers at this moment."""
        return len(self._client.nthreads())

    def ask(self, function: Callable[[], Answer]) -> Answer:
        """Have a worker call a function, and give what it returns; wait for a worker where there is none.

        Raises:
            Fault: the workers lack this program.
            Exception: whatever the function raises.
        """
        try:
            return self._result(self._client.submit(function, pure=False))
        except ImportError as error:
            raise Fault(self.scheduler, f"its workers lack a package ({error})", "install the same hftn-sr on them") from error

    def run(self, cases: Sequence[Case], job: Job) -> Generator[Outcome, None, None]:
        """Run cases on the workers.

        Args:
            cases: cases to run; workers find their files at the same paths as this process.
            job: what each worker is told.

        Yields:
            the outcome of each case, as soon as it is over.

        Raises:
            Fault: a worker has another version or another folder, or the scheduler is gone.
        """
        from distributed import KilledWorker, as_completed

        job = replace(job, patience=PATIENCE, witness=job.witness and job.witness.absolute())
        waiting = map(_absolute, cases)
        running: dict[Future[Any], Case] = {}

        def send(cases: Iterable[Case]) -> list[Future[Any]]:
            sent = {self._client.submit(_in_worker, case, job, key=f"super-resolve-{secrets.token_hex(8)}"): case for case in cases}
            running.update(sent)
            return list(sent)

        over = as_completed(send(itertools.islice(waiting, AHEAD)), loop=self._client.loop)
        suspects = []  # Dask also blames cases that only waited at a worker that died
        try:
            for future in over:
                case = running.pop(future)
                over.update(send(itertools.islice(waiting, 1)))
                try:
                    yield self._result(future)
                except KilledWorker:
                    suspects.append(case)
            for case in suspects:  # with nothing else at the workers it is known whose fault it is
                (future,) = send([case])
                try:
                    yield self._result(future)
                except KilledWorker as killed:
                    yield lost(case, f"its workers ended, {killed.last_worker.address} as the last of them")
        finally:
            self._client.cancel(list(running))

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except CancelledError as error:
            raise self._gone() from error

    def _gone(self) -> Fault:
        return Fault(self.scheduler, "the Dask scheduler is gone", "start it, then give the same command again: finished cases stand")


def _load() -> None:
    """Nothing more: a worker that receives this imports what a case needs. One that cannot says so with its first case."""


def _in_worker(case: Case, job: Job) -> Outcome:
    """`run_one` in a Dask worker, within the memory that Dask grants it."""
    from distributed import get_worker

    reuse_freed_memory()
    limit_memory(get_worker().memory_manager.memory_limit)
    return run_one(case, job)


def _absolute(case: Case) -> Case:
    """The case with paths that hold in every process."""
    reference, transform = (path and path.absolute() for path in (case.reference, case.transform))
    return replace(case, target=case.target.absolute(), reference=reference, output=case.output.absolute(), transform=transform)
