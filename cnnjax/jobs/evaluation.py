"""What a phase trains on, and how a state is evaluated, by training and by --job=evaluate."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax import data
from cnnjax.data import placement
from cnnjax.jobs import console
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.experiment import Experiment
from cnnjax.jobs.phases import Phase
from cnnjax.train import loop
from cnnjax.train import step as step_lib
from cnnjax.train.features import compute_features
from cnnjax.train.state import TrainState
from cnnjax.train.views import OverViews, over_views

PyTree = Any
# (variables, should_stop) -> {"eval_loss": …, "eval_top1": …, …}, over the whole evaluation split;
# the second may be left out.
Evaluate = Callable[..., dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a phase consumes: batches, and what each step is given of them."""

    feed: data.Feed
    evaluate: Evaluate
    constants: PyTree
    fetch: Callable[[PyTree, step_lib.Batch], step_lib.Batch]

    @classmethod
    def of(cls, experiment: Experiment, phase: Phase, feed: data.Feed, evaluate: Evaluate | None
           ) -> Inputs:
        """Returns the inputs of a phase: the feed's, the seed, and the teacher's variables."""
        beside = {"seed": experiment.seed}
        if phase.task.distillation is not None:
            beside["teacher"] = experiment.teacher.variables
        constants = placement.put_everywhere(experiment.mesh, beside) | {"feed": feed.constants}
        fetch_examples = feed.fetch  # All of the feed that `fetch` is bound to (`jobs.made_of`).

        def fetch(constants, batch):
            batch = dict(fetch_examples(constants["feed"], batch))
            batch["key"] = jax.random.key(constants["seed"])
            if "teacher" in constants:
                batch["teacher"] = constants["teacher"]
            return batch

        return cls(feed, evaluate, constants, fetch)


def make_inputs(experiment: Experiment, phase: Phase, state: TrainState | None = None,
                before: Inputs | None = None) -> Inputs:
    """Returns the batches and the evaluation of a phase: of images, or of features of them.

    Features, of a phase with `cached_trunk`, are those of the frozen trunk in the given state,
    computed here, once; an evaluation over several views of an image is one of images all the same.
    Images need no state. A phase that continues another takes what it can of the inputs before.
    """
    if phase.continued and before is not None:
        if experiment.dataset.train.image_shape is not None:  # Resized on the device.
            return before
        return Inputs.of(experiment, phase, experiment_lib.make_train_feed(experiment, phase),
                         before.evaluate)
    if phase.cached_trunk is None:
        return Inputs.of(experiment, phase, experiment_lib.make_train_feed(experiment, phase),
                         evaluator(experiment))
    start, config, mesh = time.perf_counter(), experiment.config, experiment.mesh
    variables = experiment.gather(state.variables)

    def features(split, sized):
        feed = experiment_lib.make_eval_feed(sized, split)
        return compute_features(phase.cached_trunk, variables, feed.constants, feed.batches(),
                                feed.fetch, sized.prepare, mesh, feed.num_examples)

    # `eval.image_size` leaves what the phase trains on.
    train = features(experiment.dataset.train, experiment.at_size(phase.image_size))
    count = len(train["label"])
    if eval_module(experiment) is experiment.module:
        found = features(experiment.dataset.eval, experiment)
        count += len(found["label"])
        evaluate = _evaluator(experiment, phase.task.module, lambda features: features,
                              data.make_array_eval_feed(found, mesh=mesh,
                                                        batch_size=config.train.batch_size))
    else:  # Over several views: the answers are averaged, and not the features.
        evaluate = evaluator(experiment)
    print(f"Features of {count:,} images: {console.duration(time.perf_counter() - start)}",
          flush=True)
    feed = data.make_array_feed(train, batch_size=config.train.batch_size, seed=config.seed,
                                mesh=mesh)
    return Inputs.of(experiment, phase, feed, evaluate)


def evaluator(experiment: Experiment) -> Evaluate:
    """Returns the evaluation of the whole model on the split to evaluate on."""
    return _evaluator(experiment, eval_module(experiment), experiment.prepare,
                      experiment_lib.make_eval_feed(experiment))


def evaluated(experiment: Experiment, variables: PyTree
              ) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Returns what `evaluator` gives, and the logits [N, K] and labels [N] that it is of.

    They are kept on the host, and each image is read and answered once.
    """
    module, feed = eval_module(experiment), experiment_lib.make_eval_feed(experiment)
    found = compute_features(module, variables, feed.constants, feed.batches(), feed.fetch,
                             experiment.prepare, experiment.mesh, feed.num_examples)
    answers = data.make_array_eval_feed(found, mesh=experiment.mesh, batch_size=feed.batch_size,
                                        placement="stream")
    evaluate = _evaluator(experiment, _Answers(), lambda logits: logits, answers)
    return evaluate(variables), found["image"], found["label"]


class _Answers:
    """Stands for a model where its logits take the place of the images."""

    def apply(self, variables: PyTree, logits: jax.Array, train: bool = False) -> jax.Array:
        return logits


def eval_module(experiment: Experiment) -> nn.Module | OverViews:
    """Returns the model as it is evaluated, over views of an image if the config says so."""
    return over_views(experiment.module, experiment.config.eval.tta)


def _evaluator(experiment, module, prepare, feed: data.EvalFeed) -> Evaluate:
    call = step_lib.make_eval_call(module, feed.fetch, prepare, experiment.mesh)

    def evaluate(variables, should_stop=lambda: False):
        values = loop.evaluate(call, variables, feed.constants, feed.batches(),
                               step_lib.empty_sums(experiment.mesh), should_stop)
        if experiment.dataset.num_classes < 6:  # Then five guesses say nothing.
            del values["top5"]
        return {f"eval_{name}": value for name, value in values.items()}

    return evaluate
