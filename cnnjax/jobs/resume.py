"""What a workdir holds of a run: whether that is this one, and over, and where it goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax import sweeps
from cnnjax.checkpoint import Checkpoints
from cnnjax.jobs import faults, record, workdir
from cnnjax.jobs.experiment import Experiment
from cnnjax.jobs.model_input import preprocess_of
from cnnjax.types import Preprocess, UserError


def saved_preprocess(config: ConfigDict, folder: Path) -> Preprocess | None:
    """Returns that of the run in the folder, if it started from weights: they may be gone."""
    if config.weights.path is None or not workdir.has_checkpoints(folder):
        return None
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, read_only=True)
    return preprocess_of(checkpoints.record(checkpoints.find("last")))


def has_ended(config: ConfigDict, folder: Path, saved: dict[str, Any] | None) -> bool:
    """Whether the folder holds a run that has ended, and that the config's teacher taught.

    To say that it is finished takes no teacher, which may be gone by then.

    Args:
      config: names a teacher, or none; False then.
      folder: the workdir.
      saved: the config in it.
    """
    return (config.distill.weights is not None and workdir.has_checkpoints(folder)
            and sweeps.is_over(workdir.read_json(folder / workdir.SUMMARY))
            and not (saved and record.is_moved(saved, config.distill.weights)))


def finished(experiment: Experiment, folder: Path) -> dict[str, Any] | None:
    """Returns the summary of this run, if the folder holds it and it is finished.

    Raises:
      UserError: if the folder holds another, or a run of other data.
    """
    saved = workdir.read_json(folder / workdir.CONFIG)
    if saved is not None and workdir.holds_run(folder):
        record.check_goes_on(saved, experiment.config, folder)
        _check_moved(experiment, folder, saved)
    finished = workdir.read_json(folder / workdir.SUMMARY)
    if sweeps.is_over(finished) and finished.get("steps") == experiment.schedule.stop:
        return finished
    return None


@dataclasses.dataclass
class Start:
    """The step that a run begins from, 0 or a checkpoint's, and what is known of those before."""

    step: int
    seconds: float  # Spent in earlier sessions of this run.
    rollbacks: int  # Before it, each of which has lowered the rate.
    unmeasured_since: int | None = None  # See `loop.Hooks.save`.
    # What was logged of a step that was none to evaluate, where the run now ends.
    logged: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: str | None = None  # What they were, if it began from any: see `record.describe`.

    @property
    def recorded(self) -> int:
        """The last step of which nothing will be recorded anew."""
        return self.step if self.unmeasured_since is None else self.unmeasured_since


def find_start(experiment: Experiment, folder: Path, checkpoints: Checkpoints) -> Start:
    """Returns where a run begins.

    Raises:
      UserError: if the last checkpoint is of another experiment, other data, other weights to start
        from or another teacher, or is past the end of this run.
    """
    steps = checkpoints.steps()
    if not steps:
        return Start(0, 0.0, faults.rollbacks(experiment.config, folder, 0, {}))
    step = steps[-1]
    saved = checkpoints.record(step)
    # The workdir's config.json may have been lost, or be another's; this one belongs to the arrays.
    record.check_goes_on(saved["config"], experiment.config, folder)
    if step > experiment.schedule.stop:
        raise UserError(f"The newest checkpoint in {folder} is at step {step}, past the end of a "
                        f"run of {experiment.schedule.stop} steps: train longer, or in another "
                        "--workdir.")
    _check_same_data(experiment, saved["data"]["fingerprint"])
    record.check_same_weights(experiment, saved)
    record.check_same_teacher(experiment, saved)
    measured, logged = saved["metrics"], {}
    unmeasured_since = measured.get("unmeasured_since")
    if (unmeasured_since is None and step == experiment.schedule.stop
            and "eval_top1" not in measured):  # It ends here now, and was to go on.
        unmeasured_since = step - 1
        logged = {key: value for key, value in measured.items()
                  if key.startswith("train_") or key == "images_per_second"}
    return Start(step, measured.get("seconds", 0.0),
                 faults.rollbacks(experiment.config, folder, step, saved), unmeasured_since, logged,
                 saved.get("weights"))


def _check_moved(experiment: Experiment, folder: Path, saved: Mapping[str, Any]) -> None:
    """Raises a UserError if the run in the folder is of other data, weights or teacher."""
    config = experiment.config
    pairs = [("data.name", saved["data"]["name"], config.data.name),
             ("weights.path", saved.get("weights", {}).get("path"), config.weights.path)]
    if other_teacher := record.is_moved(saved, config.distill.weights):
        pairs += [("distill.weights", saved["distill"]["weights"], config.distill.weights)]
    moved = [(key, there, here) for key, there, here in pairs if there != here]
    if not moved:
        return
    if not workdir.has_checkpoints(folder):
        key, there, here = moved[0]
        raise UserError(f"{folder} holds a run with {key}={there}, and no checkpoint that says "
                        f"whether {here} is the same. Give --config.{key}={there}, or use another "
                        "--workdir.")
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, read_only=True)
    last = checkpoints.record(checkpoints.find("last"))
    _check_same_data(experiment, last["data"]["fingerprint"])
    record.check_same_weights(experiment, last)
    if other_teacher:
        record.check_same_teacher(experiment, last)


def _check_same_data(experiment: Experiment, fingerprint: str) -> None:
    if fingerprint != experiment.dataset.fingerprint:
        raise UserError(f"The data set {experiment.dataset.name} is not the one that this run "
                        f"was trained on: its fingerprint was {fingerprint} and "
                        f"is {experiment.dataset.fingerprint}. Use another --workdir.")
