"""What stands beside the arrays in a checkpoint."""

from __future__ import annotations

from typing import Any

from cnnjax import config as config_lib
from cnnjax import trees
from cnnjax.data import Dataset
from cnnjax.jobs import backend, hosts, workdir
from cnnjax.jobs.experiment import Experiment


def describe(experiment: Experiment) -> dict[str, Any]:
    """Returns what stands beside the arrays in a checkpoint, apart from the metrics."""
    dataset = experiment.dataset
    return {
        "config": workdir.to_json(experiment.config),
        "model": {"name": experiment.config.model.name, "num_classes": dataset.num_classes,
                  "params": trees.count(experiment.abstract_state.params),
                  "dtype": experiment.dtype.name},
        "preprocess": experiment.preprocess.to_dict(),
        "class_names": list(dataset.class_names),
        "data": _data(dataset),
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
        key: found and f"sha256 {trees.sha256(found.variables)}" for key, found in read.items()})


def _data(dataset: Dataset) -> dict[str, Any]:
    return {"name": dataset.name, "train": len(dataset.train.source),
            "eval": len(dataset.eval.source), "fingerprint": dataset.fingerprint}
