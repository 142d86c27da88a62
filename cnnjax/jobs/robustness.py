"""Accuracy on corrupted images: 14 kinds, five strengths each."""

from __future__ import annotations

import functools
import zlib
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cnnjax.data import Dataset, augment
from cnnjax.data.corruptions import COLORED, KINDS, STRENGTHS, corrupt
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.evaluation import eval_module
from cnnjax.jobs.experiment import Experiment
from cnnjax.train import step as step_lib
from cnnjax.train.features import on_host
from cnnjax.types import UserError, did_you_mean

PyTree = Any
# Errors of AlexNet, means over the strengths, by which the paper divides (arXiv 1903.12261,
# section 4.2; the authors' repository gives them).
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640,
    "defocus_blur": 0.819880, "glass_blur": 0.826268, "motion_blur": 0.785948,
    "zoom_blur": 0.798360, "snow": 0.866816, "fog": 0.819324, "brightness": 0.564592,
    "contrast": 0.853204, "elastic_transform": 0.646056, "pixelate": 0.717840,
    "jpeg_compression": 0.606500}


def kinds_of(config: ConfigDict) -> tuple[str, ...]:
    """Returns the kinds that the config names, all of them for ("all",).

    Raises:
      UserError: for a kind that there is not, and for any in a run over several processes: JPEG is
        made on the host, of whole batches.
    """
    named = tuple(config.eval.corruptions)
    if named and jax.process_count() > 1:
        raise UserError("eval.corruptions takes one process: evaluate with JAX_NUM_PROCESSES=1, "
                        "or set --config.eval.corruptions=().")
    if named == ("all",):
        return KINDS
    for name in named:
        if name not in KINDS:
            raise UserError(f"eval.corruptions has {name!r}.{did_you_mean(name, KINDS)} There are "
                            f"all, {', '.join(KINDS)}.")
    return tuple(name for name in KINDS if name in named)


def check_colors(kinds: tuple[str, ...], dataset: Dataset) -> None:
    """Raises a UserError for kinds that know colours, if the images have none."""
    wrong = [name for name in kinds if name in COLORED]
    if wrong and dataset.channels not in (1, 3):
        others = tuple(name for name in kinds if name not in COLORED)
        raise UserError(f"The images of {dataset.name} have {dataset.channels} channels, but "
                        f"{' and '.join(wrong)} of eval.corruptions take 1 or 3: set "
                        f'"--config.eval.corruptions={others}".')


def measure(experiment: Experiment, variables: PyTree, kinds: tuple[str, ...], error: float
            ) -> dict[str, Any]:
    """Returns the accuracies and what the paper makes of them.

    Args:
      experiment: with the images to corrupt, at the size that the model takes.
      variables: of the model.
      kinds: of `KINDS`.
      error: of the clean images.

    Returns:
      "corruptions": {kind: accuracy at each strength}; "corruption_error", the mean error over
      kinds and strengths, and "corruption_error_over_clean", what it is above the clean one; for
      1,000 classes and all kinds also "mce_without_frost", the mean over the kinds of the error
      divided by AlexNet's.
    """
    accuracies = {kind: [] for kind in kinds}
    evaluate = _evaluator(experiment, variables)
    for kind in kinds:
        for strength in STRENGTHS:
            accuracies[kind].append(evaluate(kind, strength))
        print(f"{kind:<18} " + " ".join(f"{a:7.2%}" for a in accuracies[kind]), flush=True)
    mean = float(1 - np.mean(list(accuracies.values())))
    found = {"corruptions": accuracies, "corruption_error": mean,
             "corruption_error_over_clean": mean - error}
    if kinds == KINDS and experiment.dataset.num_classes == 1000:
        found["mce_without_frost"] = float(np.mean([
            (1 - np.mean(accuracies[kind])) / ALEXNET_ERRORS[kind] for kind in kinds]))
    return found


def _evaluator(experiment: Experiment, variables: PyTree):
    """Returns (kind, strength) -> accuracy. The model is compiled once, each corruption alone."""
    preprocess, mesh = experiment.preprocess, experiment.mesh
    feed = experiment_lib.make_eval_feed(experiment)
    whole = step_lib.replicated(mesh)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    module, root = eval_module(experiment), jax.random.key(experiment.config.seed)

    @jax.jit
    def fetch(constants, batch):
        batch = dict(feed.fetch(constants, batch))
        return batch | {"image": augment.resize(batch["image"], preprocess.size,
                                                preprocess.interpolation)}

    @functools.partial(jax.jit, out_shardings=whole)
    def right(variables, images, label, mask):
        batch = {"image": experiment.prepare(images), "label": label, "mask": mask}
        sums = step_lib.eval_step(module, variables, batch)
        return sums["top1"], sums["count"]

    def evaluate(kind, strength):
        # A name's own number, whatever other kinds are asked for.
        key = jax.random.fold_in(root, zlib.crc32(f"{kind}/{strength}".encode()))
        change = functools.partial(corrupt, kind, strength, key)
        change = change if kind == "jpeg_compression" else jax.jit(change)

        def answers(batch):
            batch = fetch(feed.constants, batch)
            images = jax.device_put(change(batch["image"], batch["index"]), rows)
            return right(variables, images, batch["label"], batch["mask"])

        hits = examples = 0
        for hit, count in on_host(map(answers, feed.batches())):
            hits, examples = hits + int(hit), examples + int(count)
        return hits / examples

    return evaluate
