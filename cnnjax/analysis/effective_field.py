"""The effective receptive field: how much each pixel of the image moves one position of a map."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.analysis import fonts
from cnnjax.analysis.receptive_field import LayerField, check_input_shape, field_of_map
from cnnjax.types import UserError

# Luo et al. call a pixel part of the effective field above this share of the largest: two standard
# deviations of a Gaussian hold 95.45 %.
THRESHOLD = 1 - 0.9545


@dataclasses.dataclass(frozen=True)
class EffectiveField:
    """How much the pixels of an image move one position of a map.

    Attributes:
      sensitivity: (H, W) float32, the root mean square derivative, of largest value 1.
      position: (row, column) of the position on the map.
      field: the theoretical field of the map's positions.
    """

    sensitivity: np.ndarray
    position: tuple[int, int]
    field: LayerField

    @property
    def size(self) -> float:
        """The side in pixels of a square with the area of the effective field."""
        return float((self.sensitivity > THRESHOLD).sum() ** 0.5)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the theoretical field in pixels, not clipped."""
        return *self.field.first_pixel(self.position), *self.field.size


def effective_field(module: nn.Module, variables: Any, input_shape: Sequence[int], endpoint: str, *,
                    batches: int = 4, seed: int = 0) -> EffectiveField:
    """Returns the effective receptive field of the middle position of an endpoint's map.

    Random images, of independent standard normal pixels, are differentiated. With v drawn from the
    standard normal distribution for each image, the mean of (v . dy / dx)^2 over images is the sum
    of the squared derivatives of all channels of y, without a backward pass for each.

        found = effective_field(model, variables, (8, 224, 224, 3), "stage2")

    Args:
      module: any module of `create_model`'s contract.
      variables: of the module: initial ones show what the architecture alone does, trained ones
        what was made of it.
      input_shape: (N, H, W, C): N images are drawn at a time.
      endpoint: a name of `module.endpoints` that is a map.
      batches: how many times N images are drawn.
      seed: of the images.

    Raises:
      UserError: if `endpoint` is no map of this model.

    Source: Luo, Li, Urtasun & Zemel, "Understanding the effective receptive field in deep
    convolutional neural networks", arXiv 1701.04128.
    """
    shape = check_input_shape("effective_field", input_shape)
    field = field_of_map(module, shape, endpoint)
    size = jax.eval_shape(lambda: _map(module, variables, jnp.zeros(shape), endpoint)).shape
    row, col = size[1] // 2, size[2] // 2

    @jax.jit
    def squares(variables, key):
        images = jax.random.normal(key, shape)
        v = jax.random.normal(jax.random.fold_in(key, 1), (size[0], size[3]))

        def moved(x):
            return (v * _map(module, variables, x, endpoint)[:, row, col]).sum()
        return jnp.square(jax.grad(moved)(images)).mean((0, 3))

    keys = jax.random.split(jax.random.key(seed), batches)
    total = np.sqrt(sum(np.asarray(squares(variables, key), np.float64) for key in keys))
    if not total.max() > 0:
        raise UserError(f"effective_field: the position ({row}, {col}) of {endpoint!r} does not "
                        "depend on the image: all derivatives are 0, or not finite.")
    return EffectiveField((total / total.max()).astype(np.float32), (row, col), field)


def plot_effective_field(found: EffectiveField, path: str | Path, title: str = "") -> None:
    """Writes a PNG of the effective field with the theoretical one as a frame, and both profiles.

    Args:
      found: what `effective_field` returned.
      path: of the PNG.
      title: above the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    height, width = found.sensitivity.shape
    top, left, tall, wide = found.box
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    picture, profile = figure.subplots(1, 2)
    image = picture.imshow(found.sensitivity, cmap="magma", vmin=0, vmax=1)
    picture.add_patch(Rectangle((left - 0.5, top - 0.5), wide, tall, fill=False, color="cyan",
                                linewidth=2))
    # The frame is shown whole: it may be larger than the image.
    columns = (min(left, 0) - 1.5, max(left + wide, width) + 0.5)
    picture.set(xlim=columns, ylim=(max(top + tall, height) + 0.5, min(top, 0) - 1.5),
                xlabel="column (pixels)", ylabel="row (pixels)",
                title=f"effective {found.size:.0f} px, theoretical {tall}x{wide} px (frame)")
    figure.colorbar(image, ax=picture, label="derivative (largest = 1)")
    middle = top + tall // 2
    row = min(max(middle, 0), height - 1)
    profile.plot(found.sensitivity[row], label=f"effective, row {row}")
    profile.axvspan(left - 0.5, left + wide - 0.5, alpha=0.15, label="theoretical")
    profile.axhline(THRESHOLD, linestyle=":", color="gray", linewidth=1)
    profile.set(xlim=columns, xlabel="column (pixels)", ylabel="derivative (largest = 1)")
    profile.legend(frameon=False)
    figure.suptitle(title or found.field.name)
    fonts.save(figure, path, dpi=120)


def _map(module: nn.Module, variables: Any, images: jax.Array, endpoint: str) -> jax.Array:
    return module.apply(variables, images, train=False, capture=(endpoint,))[1][endpoint]
