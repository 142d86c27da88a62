"""The names of ImageNet's classes."""

from __future__ import annotations

import functools
from importlib import resources


@functools.cache
def class_names() -> tuple[str, ...]:
    """Returns the 1,000 names of ImageNet-1k in the order of the outputs, as torchvision has them.

    Their licence lies beside them, in imagenet_classes.LICENSE.
    """
    text = resources.files("cnnjax.weights").joinpath("imagenet_classes.txt").read_text()
    return tuple(text.splitlines())
