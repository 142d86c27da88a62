"""Evaluation of a state, as training and --job=evaluate do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.experiment import Experiment
from cnnjax.train import loop
from cnnjax.train import step as step_lib

PyTree = Any


def evaluator(experiment: Experiment) -> Callable[[PyTree], dict[str, float]]:
    """Returns variables -> {"eval_loss": …, "eval_top1": …, …}, over the whole evaluation split."""
    feed = experiment_lib.make_eval_feed(experiment)
    call = step_lib.make_eval_call(experiment.module, feed.fetch, experiment.prepare,
                                   experiment.mesh)

    def evaluate(variables):
        values = loop.evaluate(call, variables, feed.constants, feed.batches(),
                               step_lib.empty_sums(experiment.mesh))
        if experiment.dataset.num_classes < 6:  # Then five guesses say nothing.
            del values["top5"]
        return {f"eval_{name}": value for name, value in values.items()}

    return evaluate
