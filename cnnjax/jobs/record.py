"""What stands beside the arrays in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax import config as config_lib
from cnnjax import trees
from cnnjax.data import Dataset
from cnnjax.jobs import backend, hosts, initial_weights, workdir
from cnnjax.jobs.experiment import Experiment
from cnnjax.jobs.initial_weights import InitialWeights
from cnnjax.jobs.phases import NO_WEIGHTS
from cnnjax.jobs.teacher import Teacher
from cnnjax.types import UserError


def describe(experiment: Experiment, weights: str | None = None) -> dict[str, Any]:
    """Returns what stands beside the arrays in a checkpoint, apart from the metrics.

    Args:
      experiment: of the run.
      weights: what was said of those it started from, if it has gone on.
    """
    dataset = experiment.dataset
    return {
        "config": workdir.to_json(experiment.config),
        "model": {"name": experiment.config.model.name, "num_classes": dataset.num_classes,
                  "params": trees.count(experiment.abstract_state.params),
                  "dtype": experiment.dtype.name},
        "preprocess": experiment.preprocess.to_dict(),
        "own_size": list(experiment.own_size),
        "class_names": list(dataset.class_names),
        "data": _data(dataset),
        "weights": weights or _digest(experiment.weights),
        "teacher": _digest(experiment.teacher),
        "git_commit": backend.git_commit(),
        "versions": backend.versions(),
    }


def agree(experiment: Experiment, **besides: Any) -> None:
    """Has several processes go on only if all have read the same, by whatever paths.

    Args:
      experiment: whose config they agree on.
      besides: what else they have read, of JSON.

    Raises:
      UserError: in all of them, if they have not.
    """
    if not hosts.several():
        return
    read = {"weights": experiment.weights, "distill.weights": experiment.teacher}
    hosts.agree(config_lib.flatten({"data": _data(experiment.dataset), **besides}) | {
        key: found and f"sha256 {_digest(found)}" for key, found in read.items()})


def check_goes_on(saved: Mapping[str, Any], config: ConfigDict, folder: Path) -> None:
    """Checks as `workdir.check_same_experiment` does that a run may train on.

    The file that it started from may have been moved: `check_same_weights` looks into it.
    """
    paths = {saved.get("weights", {}).get("path"), config.weights.path}
    moved = len(paths - {None, NO_WEIGHTS}) == 2
    workdir.check_same_experiment(saved, config, folder,
                                  besides=("weights.path",) if moved else ())


def check_same_weights(experiment: Experiment, saved: Mapping[str, Any]) -> None:
    """Raises a UserError if a run names other weights to start from than those it started from.

    Where they have the same path as then, nothing is read.

    Args:
      experiment: of the run.
      saved: what `describe` said when the checkpoint was made.
    """
    path, before = experiment.config.weights.path, saved["config"].get("weights", {}).get("path")
    if path == before:
        return
    if (then := saved.get("weights")) is None:
        raise UserError(f"Nothing says whether {path} holds the weights that this run has started "
                        "from: its checkpoint is from before such a record was kept. Give "
                        f"--config.weights.path={before}.")
    now = _digest(initial_weights.load(experiment.config, experiment.dataset))
    if now != then:
        raise UserError(f"The weights in {path} are not those that this run has started from: the "
                        f"sha256 of the variables was {then[:12]}… and is {now[:12]}…. Give "
                        f"--config.weights.path={before}, or start from these in another "
                        "--workdir.")


def check_same_teacher(experiment: Experiment, saved: Mapping[str, Any]) -> None:
    """Raises a UserError if a run would go on with another teacher than that of its checkpoint.

    Args:
      experiment: of the run.
      saved: what `describe` said when the checkpoint was made.
    """
    now, then = _digest(experiment.teacher), saved.get("teacher")
    path = experiment.config.distill.weights
    if then is None and is_moved(saved["config"], path):
        raise UserError(f"Nothing says whether the teacher in {path} is the one that this run has "
                        "learned from: its checkpoint is from before such a record was kept. Give "
                        f"--config.distill.weights={saved['config']['distill']['weights']}.")
    if then is not None and now != then:
        raise UserError(f"The teacher in {path} is not the one that this run has learned from: the "
                        f"sha256 of its variables was {then[:12]}… and is {now[:12]}…. Put that "
                        "one back there, or learn from this one in another --workdir.")


def is_moved(saved: Mapping[str, Any], teacher: str | None) -> bool:
    """Whether the teacher is named by another path than in a saved config."""
    return saved.get("distill", {}).get("weights") != teacher


def _digest(found: InitialWeights | Teacher | None) -> str | None:
    return found and trees.sha256(found.variables)


def _data(dataset: Dataset) -> dict[str, Any]:
    return {"name": dataset.name, "train": len(dataset.train.source),
            "eval": len(dataset.eval.source), "fingerprint": dataset.fingerprint}
