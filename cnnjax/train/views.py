"""Test-time augmentation: a model's answer to several views of an image."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.types import UserError

PyTree = Any
VIEWS = ("none", "flip", "five_crop", "ten_crop")


def views_of(images: jax.Array, name: str) -> jax.Array:
    """Returns the views of each image: [B, H, W, C] -> [B, V, H, W, C].

    Args:
      images: [B, H, W, C].
      name: "none", the image; "flip", beside it its mirror image; "five_crop", the four corners
        and the centre, 7/8 of the side as 224 of 256 pixels are, enlarged to [H, W]; "ten_crop",
        those and their mirror images (Krizhevsky et al. 2012, section 4.1).

    Raises:
      UserError: for another name.
    """
    if name not in VIEWS:
        raise UserError(f"There are no views {name!r}; there are {', '.join(VIEWS)}.")
    views = images[:, None]
    if name.endswith("crop"):
        (height, width), shape = images.shape[1:3], images.shape
        h, w = max(1, round(7 / 8 * height)), max(1, round(7 / 8 * width))
        corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w),
                   ((height - h) // 2, (width - w) // 2)]
        views = jnp.stack([jax.image.resize(images[:, y:y + h, x:x + w], shape, "linear")
                           for y, x in corners], 1)
    if name in ("flip", "ten_crop"):
        views = jnp.concatenate([views, views[:, :, :, ::-1]], 1)
    return views


@dataclasses.dataclass(frozen=True)
class OverViews:
    """A model that answers with the mean of its probabilities over the views of an image.

    Attributes:
      module: the model.
      views: a name of `views_of`.
    """

    module: nn.Module
    views: str

    def apply(self, variables: PyTree, images: jax.Array, train: bool = False) -> jax.Array:
        """Returns the logarithms of the mean probabilities, which are logits: [B, K]."""
        views = views_of(images, self.views)
        logits = self.module.apply(variables, views.reshape(-1, *images.shape[1:]), train=train)
        logs = jax.nn.log_softmax(logits.reshape(*views.shape[:2], -1))
        return jax.nn.logsumexp(logs, axis=1) - jnp.log(views.shape[1])


def over_views(module: nn.Module, views: str) -> nn.Module | OverViews:
    """Returns the model, answering over views; "none" leaves it as it is."""
    return module if views == "none" else OverViews(module, views)
