"""Where trials run: processes of this machine or jobs of SLURM, through submitit; or tasks of Ray.

An executor has `free(active)`, how many more it takes; `submit(tasks)`, which gives a job for
each; `find(job_id)`, a job that an earlier session submitted, or None; and `detached`, whether its
jobs go on without this process. A job has `id`, `ended()` and `stop()`; where the executor is told
why one has come to nothing, `why()`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnjax.jobs.lock import held
from cnnjax.jobs.sweeping import trial as trial_lib
from cnnjax.jobs.sweeping.trial import Task
from cnnjax.types import Failure, UserError

SUBMITIT = ".submitit"
_FOREVER = 60 * 24 * 365  # Minutes.
_LOOKS = 12  # At SLURM's queue, before a sweep that needs to know it gives up: for a minute.
_LARGEST_ARRAY = 1000  # SLURM's MaxArraySize is 1001 unless a cluster sets another.
_ROOT = Path(__file__).resolve().parents[3]  # What holds the package.


class Adopted:
    """A trial that somebody else runs: what an earlier session of the sweep has left."""

    def __init__(self, folder: Path):
        self.id, self._folder = "", folder

    def ended(self) -> bool:
        return not held(self._folder / trial_lib.LOCK)

    def stop(self) -> None:
        state = trial_lib.read(self._folder)
        if state.get("pid") and state.get("host") == os.uname().nodename:
            with contextlib.suppress(OSError):
                os.kill(state["pid"], signal.SIGTERM)


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
        self.slots = divide(at_a_time, trials, visible_gpus(), cores())
        self._jobs: list[_LocalJob | None] = [None] * len(self.slots)

    def free(self, active: int) -> int:
        return max(0, len(self.slots) - active)

    def submit(self, tasks: Sequence[Task]) -> Iterator[_LocalJob]:
        for task in tasks:
            slot = next(i for i, job in enumerate(self._jobs) if job is None or job.ended())
            with _ignoring_interrupts(), _finding_this_package():
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
def _finding_this_package() -> Iterator[None]:
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


def visible_gpus() -> list[str]:
    """Returns the NVIDIA GPUs that a process here may use, without waking them."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        # What is no device (-1, NoDevFiles, nothing) hides all from there on.
        return list(itertools.takewhile(re.compile(r"\d|GPU-|MIG-").match,
                                        os.environ["CUDA_VISIBLE_DEVICES"].split(",")))
    return sorted((path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia*")
                   if re.fullmatch(r"nvidia\d+", path.name)), key=int)


def cores() -> list[int]:
    """Returns the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class Slurm:
    """Jobs of SLURM, those that are submitted together in one array.

    Args:
      folder: of the sweep, which the nodes see too.
      parameters: of `submitit.SlurmExecutor`.
      poll: seconds between two looks at the queue.
    """

    detached = True

    def __init__(self, folder: Path, parameters: Mapping[str, Any], poll: float = 5.0):
        import submitit

        try:
            # How often a job may run out of its time: it saved, so as often as it takes.
            self._executor = submitit.SlurmExecutor(folder=folder / SUBMITIT, max_num_timeout=1000)
            self._executor.update_parameters(**parameters)
        except RuntimeError:
            raise UserError("There is no SLURM here: it has no srun. Run the sweep where jobs are "
                            "submitted, or on this machine with --executor=local.") from None
        self._poll, self._looked = poll, float("-inf")
        self._queue: frozenset[str] | None = None  # As SLURM said last; None: it never has.

    def free(self, active: int) -> int:
        return _LARGEST_ARRAY

    def submit(self, tasks: Sequence[Task]) -> list[_SlurmJob]:
        try:
            with _finding_this_package(), self._executor.batch():
                jobs = [self._executor.submit(task) for task in tasks]
        except Exception as error:  # submitit's own, with what sbatch said.
            raise UserError(f"SLURM took no job: {error}. See --config.sweep.slurm_*.") from error
        # They are in the queue until a look at it that comes later says otherwise.
        self._queue = (self._queue or frozenset()) | {job.job_id for job in jobs}
        self._looked = time.monotonic()
        return [_SlurmJob(job.job_id, self) for job in jobs]

    def find(self, job_id: str) -> _SlurmJob | None:
        if not job_id:
            return None
        for _ in range(_LOOKS):
            said = self._look()
            if self._queue is not None:
                return _SlurmJob(job_id, self) if job_id in self._queue else None
            time.sleep(self._poll)
        raise Failure(f"SLURM does not say which jobs are in its queue: {said}. What an earlier "
                      "session submitted may be there, so nothing is submitted now. Run the same "
                      "command when squeue works.")

    def waits_or_runs(self, job_id: str) -> bool:
        """Whether the job is in the queue, as of the last time that SLURM said what is."""
        self._look()
        return job_id in (self._queue or ())

    def _look(self) -> str:
        """Asks for the ids of this user's jobs, if that is a while ago; returns what went wrong.

        A controller that does not answer just now has lost no job: what it said last holds.
        """
        if time.monotonic() - self._looked <= self._poll:
            return ""
        try:
            done = subprocess.run(["squeue", "--me", "--noheader", "--array", "--format=%i"],
                                  capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        finally:
            self._looked = time.monotonic()
        if done.returncode:
            return " ".join(done.stderr.split()) or f"squeue ended with {done.returncode}"
        self._queue = frozenset(done.stdout.split())
        return ""


class _SlurmJob:
    def __init__(self, job_id: str, executor: Slurm):
        self.id, self._executor = job_id, executor

    def ended(self) -> bool:
        return not self._executor.waits_or_runs(self.id)

    def stop(self) -> None:
        subprocess.run(["scancel", self.id], capture_output=True)


class Ray:
    """Tasks of a Ray cluster, or of Ray on this machine.

    Args:
      cpus: of a trial.
      gpus: of a trial.
      at_a_time: trials; 0 is as many as the cluster has room for.

    Raises:
      UserError: if Ray is not installed, there is no cluster at RAY_ADDRESS, or this machine has no
        room for a trial.
    """

    detached = False

    def __init__(self, cpus: int, gpus: int, at_a_time: int = 0):
        try:
            import ray
        except ImportError:
            raise UserError("--executor=ray needs Ray: pip install -e '.[ray]'. Or use "
                            "--executor=local.") from None
        self._ray, address = ray, os.environ.get("RAY_ADDRESS")
        try:
            ray.init(address=address, log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if not address:
                raise
            raise UserError(f"RAY_ADDRESS is {address}, and Ray says: {_line(error)}. Give the "
                            "address of a cluster that runs, or unset RAY_ADDRESS to run Ray on "
                            "this machine.") from error
        # For what there is nowhere Ray waits without a word. A cluster may yet grow.
        if without := _without_room(ray.nodes(), cpus or 1, gpus):
            if not address:
                raise UserError(without)
            print(f"Warning: {without} The trials wait for one.", file=sys.stderr, flush=True)
        if not gpus and any(node["Resources"].get("GPU") for node in ray.nodes()):
            print("Warning: Ray has GPUs, but divides among the trials only what they ask for: "
                  "--config.sweep.gpus=1 gives each one of its own.", file=sys.stderr, flush=True)
        self._run = ray.remote(num_cpus=cpus or 1, num_gpus=gpus, max_retries=0)(_call)
        self._at_a_time = at_a_time or 1_000_000

    def free(self, active: int) -> int:
        return max(0, self._at_a_time - active)

    def submit(self, tasks: Sequence[Task]) -> list[_RayJob]:
        return [_RayJob(self._ray, self._run.remote(dataclasses.replace(task, watch=None)))
                for task in tasks]

    def find(self, job_id: str) -> None:
        return None


def _call(task: Task) -> str:
    return task()


def _without_room(nodes: Sequence[Mapping[str, Any]], cpus: int, gpus: int) -> str:
    """Returns what to say if no node has the cores and the GPUs of a trial, else ""."""
    here = [node["Resources"] for node in nodes if node["Alive"]]
    if any(r.get("CPU", 0) >= cpus and r.get("GPU", 0) >= gpus for r in here):
        return ""
    most = [max((r.get(name, 0) for r in here), default=0) for name in ("CPU", "GPU")]
    return (f"A trial asks for sweep.cpus={cpus} and sweep.gpus={gpus}, and no node of Ray's has "
            f"both: they have at most {most[0]:g} cores and {most[1]:g} GPUs.")


def _line(error: Exception) -> str:
    """Returns what counts of an error of Ray's: of a traceback the last line, else the first."""
    text = str(error).strip()
    return (text.splitlines() or [repr(error)])[-1 if "\n  File " in text else 0].rstrip(".")


class _RayJob:
    def __init__(self, ray: Any, reference: Any):
        self._ray, self._reference, self.id = ray, reference, reference.hex()

    def ended(self) -> bool:
        return bool(self._ray.wait([self._reference], timeout=0)[0])

    def stop(self) -> None:
        self._ray.cancel(self._reference)

    def why(self) -> str:
        try:
            self._ray.get(self._reference)
        except Exception as error:
            return f"Ray says: {_line(error)}"
        return ""
