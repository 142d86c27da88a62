"""A contact sheet of training images as the model will see them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from cnnjax.data import Feed, StreamFeed
from cnnjax.jobs import contact_sheet
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.experiment import Experiment
from cnnjax.train import step as step_lib
from cnnjax.types import UserError

# More rows of a batch that is not mixed need not be augmented to show a few of them.
_ROWS = 64


def draw(experiment: Experiment, readable: np.ndarray | None = None) -> bytes:
    """Returns a PNG: a column for an image, as it is in the first row, then as training sees it.

    The images are those of the first batch, and the row below the first is what step 0 is given.
    The rows below that are the same images as the steps and epochs after it would augment them.
    Below each stands its class; where labels are mixed, both with their weights.

    Args:
      experiment: which reads its images from the host.
      readable: bool [N]: the training examples to choose from.

    Raises:
      UserError: if none of those is among the images of that batch.
    """
    section, phase = experiment.config.summarize, experiment.phases[-1]
    feed = experiment_lib.make_train_feed(experiment, phase)
    _, batch = next(iter(feed.batches(0, 1)))
    batch = {name: np.asarray(array)[0] for name, array in batch.items()}
    if phase.task.mix is None:  # A row's partner may be anywhere, and its draws are by its place.
        rows = -(-_ROWS // experiment.mesh.size) * experiment.mesh.size
        batch = {name: array[:rows] for name, array in batch.items()}
    _, different = np.unique(batch["index"], return_index=True)  # Not the repeated ones.
    shown = [row for row in sorted(different.tolist())
             if readable is None or readable[batch["index"][row]]][:section.images]
    if not shown:
        raise UserError("None of the images of the first batch can be read, so there are none to "
                        "show augmented. Remove the bad files, or see another batch: "
                        f"--config.seed={experiment.config.seed + 1}.")
    key = jax.random.key(experiment.config.seed)
    call = jax.jit(lambda step, batch: step_lib.augmented(phase.task, step, batch | {"key": key}))
    source, names = experiment.dataset.train.source, experiment.dataset.class_names
    cells = []
    for row in shown:
        image, label = source[int(batch["index"][row])]
        cells.append((image, names[label], "{}x{}, as it is".format(*image.shape[:2])))
    for number in range(section.draws):
        images, targets = jax.device_get(call(number, _drawn(feed, batch, number)))
        cells += [(_pixels(images[row], experiment), *_caption(targets, row, names))
                  for row in shown]
    return contact_sheet.draw(cells, columns=len(shown))


def _drawn(feed: Feed, batch: dict[str, np.ndarray], epoch: int) -> dict[str, np.ndarray]:
    """Returns the batch as in another epoch: the host may cut its images anew."""
    assert isinstance(feed, StreamFeed)
    # Of one that is repeated in the batch, each row has a crop of its own.
    rows, _ = feed.stream.read(batch["index"], feed.order.passes(
        np.arange(len(batch["index"])) + epoch * feed.order.n))
    return {name: rows[name] for name in ("image", "label")}


def _pixels(image: np.ndarray, experiment: Experiment) -> np.ndarray:
    """Returns uint8 [H, W, C] of an input of the model, which is normalised."""
    preprocess = experiment.preprocess
    values = image.astype(np.float32) * np.array(preprocess.std) + np.array(preprocess.mean)
    return np.clip(np.round(255 * values), 0, 255).astype(np.uint8)


def _caption(targets: Any, row: int, names: tuple[str, ...]) -> tuple[str, str]:
    label = names[targets.label[row]]
    if targets.other is None:
        return label, ""
    weight = float(np.broadcast_to(targets.weight, targets.label.shape)[row])
    if weight > 0.995:
        return label, ""
    return f"{weight:.2f} {label}", f"{1 - weight:.2f} {names[targets.other[row]]}"
