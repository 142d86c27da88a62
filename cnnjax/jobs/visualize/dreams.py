"""Images made to move a channel or a class as much as they can, for part 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.analysis import Objective, Transforms, channel, class_logit, maximise
from cnnjax.analysis.rendering import as_rgb, fitted
from cnnjax.data.inputs import normalized
from cnnjax.jobs.visualize.page import Figure, Row, Text, Tile
from cnnjax.jobs.visualize.subject import SIDE, Subject

# Smaller than a photo: a third of the time, and as much to be seen.
_SIZE, _CLASSES, _BATCH = 128, 10, 16


def of_channels(subject: Subject, channels: Mapping[str, Sequence[int]]
                ) -> dict[tuple[str, int], np.ndarray]:
    """Returns {(endpoint, channel): picture}, of none if the config asks for no steps."""
    keys = [(name, number) for name, numbers in channels.items() for number in numbers]
    if not subject.settings.ascent or not keys:
        return {}
    images = _made(subject, [channel(*key) for key in keys])
    return {key: fitted(as_rgb(image), SIDE) for key, image in zip(keys, images, strict=True)}


def of_classes(subject: Subject) -> list:
    """Returns an image for each of the first classes, and what the model says about it."""
    if not subject.settings.ascent:
        return []
    classes = subject.classes_seen()[:_CLASSES]
    images = _made(subject, [class_logit(number) for number in classes])
    inputs = normalized(jnp.asarray(images * 255), subject.model.preprocess)
    said = np.asarray(jax.nn.softmax(subject.model.module.apply(
        subject.model.variables, inputs, train=False)))
    first = said.argmax(1)
    tiles = [Tile(fitted(as_rgb(image), SIDE), f"for {subject.classes[number]}\n"
                  f"it says {subject.classes[first[k]]}, {said[k].max():.0%}")
             for k, (number, image) in enumerate(zip(classes, images, strict=True))]
    return [Text("What it takes for its classes", heading=True),
            Text("Images made to raise the logit of a class, and what the model then says about "
                 f"them: it puts the class first in {sum(first == classes)} of {len(classes)}."),
            Figure("classes", (Row("", tiles),))]


def _made(subject: Subject, objectives: Sequence[Objective]) -> np.ndarray:
    """(N, h, w, C) in [0, 1]."""
    height, width = _size(subject)
    return maximise(subject.model.module, subject.model.variables, objectives,
                    size=(height, width), steps=subject.settings.ascent,
                    seed=subject.settings.seed, preprocess=subject.model.preprocess,
                    # Of a digit the usual 8 pixels would be a third.
                    transforms=Transforms(shift=min(height, width) / 16),
                    batch_size=_BATCH).images


def _size(subject: Subject) -> tuple[int, int]:
    """The model's own size, or a smaller one if it takes that."""
    own = subject.pixels.shape[1:3]
    if max(own) <= _SIZE:
        return own
    smaller = jax.ShapeDtypeStruct((1, _SIZE, _SIZE, subject.pixels.shape[3]), jnp.float32)
    try:
        jax.eval_shape(lambda v, x: subject.model.module.apply(v, x, train=False),
                       subject.model.variables, smaller)
    except Exception:  # Flax, JAX and the model each have errors of their own for it.
        return own
    return _SIZE, _SIZE
