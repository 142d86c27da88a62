"""Trials as tasks of Ray."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cnnjax.jobs.sweeping.trial import Task
from cnnjax.types import UserError


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
