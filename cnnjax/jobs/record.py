"""What stands beside the arrays in a checkpoint."""

from __future__ import annotations

from typing import Any

from cnnjax import trees
from cnnjax.jobs import backend, workdir
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
        "data": {"name": dataset.name, "train": len(dataset.train.source),
                 "eval": len(dataset.eval.source), "fingerprint": dataset.fingerprint},
        "git_commit": backend.git_commit(),
        "versions": backend.versions(),
    }
