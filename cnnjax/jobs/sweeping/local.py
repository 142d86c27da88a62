"""Trials as processes of this machine, through submitit."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cnnjax.cores import cores
from cnnjax.jobs.launches import visible_gpus
from cnnjax.jobs.sweeping.trial import Task

SUBMITIT = ".submitit"
_FOREVER = 60 * 24 * 365  # Minutes.
_ROOT = Path(__file__).resolve().parents[3]  # What holds the package.


class Local:
    """Processes of this machine, whose GPUs or cores are divided among them.

    Args:
      folder: of the sweep.
      at_a_time: processes; 0 is one a GPU or, where there are none, one a core.
      trials: how many there are to run, at most.
    """

    detached = False

    def __init__(self, folder: Path, at_a_time: int, trials: int):
        import submitit

        self._executor = submitit.LocalExecutor(folder=folder / SUBMITIT)
        self._executor.update_parameters(timeout_min=_FOREVER)
        self.slots = divide(at_a_time, trials, visible_gpus(os.environ), cores())
        self._jobs: list[_LocalJob | None] = [None] * len(self.slots)

    def free(self, active: int) -> int:
        return max(0, len(self.slots) - active)

    def submit(self, tasks: Sequence[Task]) -> Iterator[_LocalJob]:
        for task in tasks:
            slot = next(i for i, job in enumerate(self._jobs) if job is None or job.ended())
            with _ignoring_interrupts(), finding_this_package():
                job = self._executor.submit(dataclasses.replace(task, **self.slots[slot]))
            self._jobs[slot] = _LocalJob(job)
            yield self._jobs[slot]

    def find(self, job_id: str) -> None:
        return None  # What still runs holds its folder's lock.


class _LocalJob:
    def __init__(self, job: Any):
        self._job, self.id = job, job.job_id

    def ended(self) -> bool:
        return self._job.done()

    def stop(self) -> None:
        # submitit's cancel interrupts and, a second later, kills: a trial needs longer to save.
        with contextlib.suppress(OSError):
            os.kill(int(self.id), signal.SIGTERM)


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Processes that start meanwhile don't hear Ctrl-C, which is for the sweep."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def finding_this_package() -> Iterator[None]:
    """Processes that start meanwhile can import cnnjax, whatever folder they start in.

    A `Task` is unpickled by a module of submitit, beside which there is no cnnjax as there is
    beside launch.py.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def divide(at_a_time: int, trials: int, gpus: Sequence[str], cores: Sequence[int]
           ) -> list[dict[str, Any]]:
    """Returns, for each process at a time, the cores and the variables of a `Task`.

    Args:
      at_a_time: processes; 0 is one a GPU or, without GPUs, one a core. More than there are devices
        share them.
      trials: no more processes than that.
      gpus: as CUDA_VISIBLE_DEVICES names them.
      cores: numbers of CPU cores.
    """
    count = min(at_a_time or len(gpus) or len(cores), max(1, trials))
    slots = []
    for i in range(count):
        environment = {}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(_share(gpus, i, count))
            if count > len(gpus):  # Each would reserve three quarters of the memory.
                environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = (
                    f"{0.9 / -(-count // len(gpus)):.3f}")
        slots.append({"cores": tuple(_share(cores, i, count)), "environment": environment})
    return slots


def _share(devices: Sequence[Any], i: int, count: int) -> Sequence[Any]:
    if count > len(devices):
        return [devices[i % len(devices)]]
    return devices[i * len(devices) // count:(i + 1) * len(devices) // count]
