"""Where trials run: processes of this machine, jobs of SLURM, or tasks of Ray.

An executor has `free(active)`, how many more it takes; `submit(tasks)`, which gives a job for
each; `find(job_id)`, a job that an earlier session submitted, or None; and `detached`, whether its
jobs go on without this process. A job has `id`, `ended()` and `stop()`; where the executor is told
why one has come to nothing, `why()`.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from ml_collections import ConfigDict

from cnnjax.jobs.lock import held
from cnnjax.jobs.sweeping import trial as trial_lib
from cnnjax.jobs.sweeping.local import Local
from cnnjax.jobs.sweeping.ray import Ray
from cnnjax.jobs.sweeping.slurm import Slurm, slurm_parameters


def make(section: ConfigDict, folder: Path, trials: int) -> Local | Slurm | Ray:
    """Returns the executor that a config names.

    Args:
      section: `config.sweep`.
      folder: of the sweep.
      trials: how many there are to run, at most.

    Raises:
      UserError: if it is not to be had here.
    """
    if section.executor == "slurm":
        return Slurm(folder, slurm_parameters(section))
    if section.executor == "ray":
        return Ray(section.cpus, section.gpus, section.at_a_time)
    return Local(folder, section.at_a_time, trials)


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
