"""What a run does about what goes wrong: rolling back a divergence, and saying what was not saved.

A rollback is kept in rollbacks.json, and from the next checkpoint on in its record. A run that is
killed before that one starts from the same checkpoint with the same lowered rate; without the file
it would diverge there once more and roll back to the same.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax.checkpoint import Checkpoints, warn
from cnnjax.jobs import hosts, record, workdir
from cnnjax.jobs.experiment import Experiment
from cnnjax.train.loop import NonFiniteLossError
from cnnjax.types import UserError

ROLLBACKS = "rollbacks.json"


def rollbacks(config: ConfigDict, folder: Path, step: int, saved: Mapping[str, Any]) -> int:
    """Returns how often the run has been rolled back that starts from this step and record."""
    last_step, last_count = rolled_back_to(config, folder)
    return max(saved.get("rollbacks", 0), last_count if last_step == step else 0)


def rolled_back_to(config: ConfigDict, folder: Path) -> tuple[int | None, int]:
    """Returns the step of the last rollback and how many there were by then, or (None, 0)."""
    with contextlib.suppress(UserError, KeyError):  # A damaged file is none.
        last = workdir.read_json(folder / ROLLBACKS) or {}
        if last:
            # Of a run that began anew with another config the file says nothing.
            record.check_goes_on(last["config"], config, folder)
            return last["step"], last["count"]
    return None, 0


def rate_factor(config: ConfigDict, count: int) -> float:
    """Returns what the rates are multiplied by after this number of rollbacks."""
    return config.train.rollback_lr_factor ** count


def roll_back(error: NonFiniteLossError, experiment: Experiment, folder: Path,
              checkpoints: Checkpoints, count: int) -> bool:
    """Prepares the next start, from the last good checkpoint with a lower rate; False if not so.

    Args:
      error: where it was noticed. Nothing from there on has been saved.
      experiment: with its rates as they were.
      folder: the workdir.
      checkpoints: of the run.
      count: of rollbacks before this one.
    """
    config = experiment.config
    if config.train.on_non_finite != "rollback" or count >= config.train.max_rollbacks:
        return False
    checkpoints.wait()
    step = max(checkpoints.steps(), default=0)
    last = rolled_back_to(config, folder)
    hosts.meet("rollbacks read")  # All have read the file before the first writes it.
    if step and last == (step, count):
        # From there it has diverged twice: its numbers are finite, but no longer good ones.
        for name in checkpoints.set_aside({step: "diverged"}):
            warn(f"The run has diverged twice from the checkpoint at step {step:,}, which is no "
                 f"longer used and kept as {name}.")
        checkpoints.check_last()
        step = max(checkpoints.steps(), default=0)
    try:
        workdir.write_json(folder / ROLLBACKS, {
            "step": step, "count": count + 1, "config": workdir.to_json(config)})
    except OSError as error:  # Nobody would count, and the rate stay as it is.
        warn(f"{folder / ROLLBACKS} could not be written: {error.strerror}. Not rolling back.")
        return False
    hosts.meet("rollbacks written")
    warn(f"{error}, where the learning rate was {experiment.learning_rate(error.step - 1):.4g}. "
         f"Going back to step {step:,} with {rate_factor(config, count + 1):.4g} times the rate "
         f"of the config (rollback {count + 1} of {config.train.max_rollbacks}).")
    return True


def report_non_finite(error: NonFiniteLossError, experiment: Experiment, folder: Path,
                      checkpoints: Checkpoints, count: int) -> None:
    """Writes the summary of a run that a loss has ended, and says what to try."""
    checkpoints.wait()
    steps = checkpoints.steps()
    rate = experiment.learning_rate(max(0, error.step - 1))
    good = (f"The last good checkpoint is at step {steps[-1]:,}, in {folder}." if steps
            else "There is no checkpoint before it.")
    with tolerate_full_disk(workdir.SUMMARY):
        workdir.write_json(folder / workdir.SUMMARY, {
            "status": "non_finite", "model": experiment.config.model.name,
            "data": experiment.dataset.name, "steps": error.step, "lr": rate,
            "last_good_step": steps[-1] if steps else None, "rollbacks": count,
            "checkpoint_errors": checkpoints.errors})
    tried = f" {count} rollbacks did not help." if count else ""
    print(f"Stopped: {error}, where the learning rate was {rate:.4g}.{tried} {good} "
          "Try a lower --config.schedule.lr, a longer warm-up, or --config.optimizer.clip_norm=1; "
          "--config.train.on_non_finite=rollback lowers the rate by itself.",
          file=sys.stderr)


def report_unsaved(folder: Path, checkpoints: Checkpoints, step: int) -> None:
    """Says that a run came to its end and its last step could not be saved."""
    steps = checkpoints.steps()
    with tolerate_full_disk(workdir.SUMMARY):
        workdir.write_json(folder / workdir.SUMMARY, {
            "status": "not_saved", "steps": step, "last_good_step": steps[-1] if steps else None,
            "checkpoint_errors": checkpoints.errors})
    print(f"Failed: the run reached step {step:,}, but that could not be saved: "
          f"{checkpoints.errors[-1]['error']}. " + (
              f"The last good checkpoint is at step {steps[-1]:,}. " if steps else "")
          + "Make room in, or give write access to, the workdir and run the same command to go on.",
          file=sys.stderr, flush=True)


@contextlib.contextmanager
def tolerate_full_disk(what: str) -> Iterator[None]:
    """Makes an OSError a warning: `what` is not worth a run."""
    try:
        yield
    except OSError as error:
        warn(f"{what} could not be written: {error.strerror}.")
