"""Trials as jobs of SLURM, through submitit."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax.jobs.sweeping.local import SUBMITIT, finding_this_package
from cnnjax.jobs.sweeping.trial import Task
from cnnjax.types import Failure, UserError

_LOOKS = 12  # At SLURM's queue, before a sweep that needs to know it gives up: for a minute.
# SLURM's reasons for which a job would wait for ever: nobody has what it asks for, or it is held.
_STUCK = re.compile("Partition(Config|NodeLimit|TimeLimit)|BadConstraints|Invalid|PerJob|[Hh]eld")
_LARGEST_ARRAY = 1000  # SLURM's MaxArraySize is 1001 unless a cluster sets another.


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
        # Why each job waits, as SLURM said last; None: it never has.
        self._queue: dict[str, str] | None = None
        self._told: set[str] = set()

    def free(self, active: int) -> int:
        return _LARGEST_ARRAY

    def submit(self, tasks: Sequence[Task]) -> list[_SlurmJob]:
        try:
            with finding_this_package(), self._executor.batch():
                jobs = [self._executor.submit(task) for task in tasks]
        except Exception as error:  # submitit's own, with what sbatch said.
            raise UserError(f"SLURM took no job: {error}. See --config.sweep.slurm_*.") from error
        # They are in the queue until a look at it that comes later says otherwise.
        self._queue = (self._queue or {}) | {job.job_id: "" for job in jobs}
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
        why = (self._queue or {}).get(job_id)
        if why and _STUCK.search(why) and why not in self._told:
            self._told.add(why)
            print(f"Warning: jobs of this sweep may wait for ever; SLURM's reason is {why}. See "
                  "--config.sweep.cpus, sweep.gpus and sweep.slurm_*, and what scontrol show job "
                  f"{job_id} says.", file=sys.stderr, flush=True)
        return why is not None

    def _look(self) -> str:
        """Asks for the ids of this user's jobs, if that is a while ago; returns what went wrong.

        A controller that does not answer just now has lost no job: what it said last holds.
        """
        if time.monotonic() - self._looked <= self._poll:
            return ""
        try:
            done = subprocess.run(["squeue", "--me", "--noheader", "--array", "--format=%i %r"],
                                  capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        finally:
            self._looked = time.monotonic()
        if done.returncode:
            return " ".join(done.stderr.split()) or f"squeue ended with {done.returncode}"
        self._queue = {job: why for job, _, why in (
            line.partition(" ") for line in done.stdout.splitlines())}
        return ""


class _SlurmJob:
    def __init__(self, job_id: str, executor: Slurm):
        self.id, self._executor = job_id, executor

    def ended(self) -> bool:
        return not self._executor.waits_or_runs(self.id)

    def stop(self) -> None:
        subprocess.run(["scancel", self.id], capture_output=True)


def slurm_parameters(sweep: ConfigDict) -> dict[str, Any]:
    """Returns the config's section as `submitit.SlurmExecutor` takes it.

    Raises:
      UserError: if slurm_options is not "name=value name=value".
    """
    options = {"requeue": True}  # At the end of its time, whatever JobRequeue the cluster has.
    for option in sweep.slurm_options.split():
        name, equals, value = option.lstrip("-").partition("=")
        if not equals:
            raise UserError(f"sweep.slurm_options has {option!r}; it takes name=value pairs of "
                            'sbatch, such as "account=vision qos=low".')
        options[name] = value
    known = {"job_name": "cnnjax", "partition": sweep.slurm_partition, "time": sweep.slurm_minutes,
             "cpus_per_task": sweep.cpus or None, "gpus_per_node": sweep.gpus or None,
             "mem_gb": sweep.slurm_memory_gb or None,
             "array_parallelism": sweep.at_a_time or _LARGEST_ARRAY,
             "additional_parameters": options,
             # Said again: since 22.05 srun does not take them over from sbatch.
             "srun_args": [f"--cpus-per-task={sweep.cpus}"] if sweep.cpus else None}
    return {key: value for key, value in known.items() if value is not None}
