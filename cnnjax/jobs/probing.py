"""Linear probe and nearest neighbours on the features of a frozen model."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.experiment import Experiment
from cnnjax.train import probe
from cnnjax.train import step as step_lib
from cnnjax.train.features import compute_features

PyTree = Any


def measure(experiment: Experiment, variables: PyTree) -> dict[str, float]:
    """Returns {"probe_knn": …, "probe_linear": …}, accuracies, those that `eval.probe` names.

    Features are those before the head, of the training images without augmentation and of the
    images to evaluate on. What the head was trained to say plays no part.
    """
    section, classes = experiment.config.eval, experiment.dataset.num_classes
    trunk = experiment.module.clone(num_classes=0)
    variables = jax.device_put(variables, step_lib.replicated(experiment.mesh))

    def features(split):
        feed = experiment_lib.make_eval_feed(experiment, split)
        found = compute_features(trunk, variables, feed.constants, feed.batches(), feed.fetch,
                                 experiment.prepare, experiment.mesh, feed.num_examples)
        return found["image"], found["label"]

    (train, labels), (queries, right) = (
        features(split) for split in (experiment.dataset.train, experiment.dataset.eval))
    found = {}
    if section.probe in ("knn", "all"):
        answers = probe.knn_predict(train, labels, queries, num_classes=classes,
                                    neighbours=section.probe_neighbours)
        found["probe_knn"] = float(np.mean(answers == right))
    if section.probe in ("linear", "all"):
        train, queries = probe.standardized(train, queries)
        weights, biases = probe.fit_linear(train, labels, num_classes=classes)
        answers = np.asarray(probe.predict_linear(weights, biases, queries))
        found["probe_linear"] = float(np.mean(answers == right))
    return found
