"""What layers look for and what they see, as pictures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from cnnjax.analysis import fonts
from cnnjax.analysis.receptive_field import LayerField, endpoint_fields, field_of_map
from cnnjax.analysis.rendering import as_rgb
from cnnjax.analysis.summary import summarize
from cnnjax.types import UserError


class Patch(NamedTuple):
    """A part of an image that moves one channel of a map.

    Attributes:
      image: its number.
      position: (row, column) on the map.
      value: of the channel there.
      pixels: (height, width, C), the position's receptive field; what is beyond the image is 0.
    """

    image: int
    position: tuple[int, int]
    value: float
    pixels: np.ndarray


def first_kernel(module: nn.Module, variables: Any, input_shape: Sequence[int]) -> np.ndarray:
    """Returns the kernel (h, w, C, filters) of the first convolution, the one that sees pixels.

    Args:
      module: any module of `create_model`'s contract.
      variables: of the module.
      input_shape: (N, H, W, C) of its images.

    Raises:
      UserError: if it has none.
    """
    for row in summarize(module, input_shape).rows:
        if row.kind == "conv":
            layer = functools.reduce(lambda tree, key: tree[key], row.name.split("/"),
                                     variables["params"])
            return np.asarray(layer["kernel"])
    raise UserError("The model has no convolution.")


def kernel_colors(kernel: np.ndarray) -> np.ndarray:
    """Returns a kernel (h, w, C, filters) as values of an image, from 0 to 1.

    Each filter has a scale of its own: weight 0 is grey, the largest magnitude 0 or 1.
    """
    largest = np.abs(kernel).max((0, 1, 2), keepdims=True)
    return 0.5 + kernel / (2 * np.where(largest > 0, largest, 1))


def filter_grid(kernel: Any, columns: int = 8, gap: int = 1) -> np.ndarray:
    """Returns filters as one picture, (height, width, 3), in colour as they see it.

    Args:
      kernel: (h, w, C, filters), C being 1 or 3; drawn in `kernel_colors`.
      columns: filters in a row.
      gap: white pixels between them.

    Raises:
      UserError: if the filters see neither grey nor colour images.
    """
    kernel = np.asarray(kernel, np.float32)
    height, width, channels, filters = kernel.shape
    if channels not in (1, 3):
        raise UserError(f"filter_grid shows filters of 1 or 3 channels; these have {channels}. "
                        "Only a first layer sees colours.")
    shown = np.broadcast_to(kernel_colors(kernel), (height, width, 3, filters))
    rows = -(-filters // columns)
    grid = np.ones((rows * (height + gap) + gap, min(filters, columns) * (width + gap) + gap, 3),
                   np.float32)
    for i in range(filters):
        top, left = (n * (size + gap) + gap for n, size in
                     zip(divmod(i, columns), (height, width), strict=True))
        grid[top:top + height, left:left + width] = shown[..., i]
    return grid


def strongest_patches(module: nn.Module, variables: Any, images: Any, endpoint: str, channel: int,
                      count: int = 9) -> list[Patch]:
    """Returns the parts of images that move a channel most, one an image, the strongest first.

    Args:
      module: any module of `create_model`'s contract.
      variables: of the module.
      images: (N, H, W, C), as the model takes them.
      endpoint: a name of `module.endpoints` that is a map.
      channel: of that map.
      count: how many, at most N.

    Raises:
      UserError: if there is no such endpoint or channel.

    Source: Zeiler & Fergus, arXiv 1311.2901, section 4.
    """
    field = field_of_map(module, images.shape, endpoint)
    found = np.asarray(_capture(module, (endpoint,), variables, images)[endpoint], np.float32)
    if not 0 <= channel < found.shape[-1]:
        raise UserError(f"{endpoint!r} has channels 0 to {found.shape[-1] - 1}, not {channel}.")
    flat = found[..., channel].reshape(len(found), -1)
    patches = []
    for i in np.argsort(-flat.max(1), kind="stable")[:count]:
        position = tuple(map(int, np.unravel_index(flat[i].argmax(), found.shape[1:3])))
        patches.append(Patch(int(i), position, float(flat[i].max()),
                             crop_field(images[i], field, position)))
    return patches


def crop_field(image: Any, field: LayerField, position: tuple[int, int], fill: Any = 0
               ) -> np.ndarray:
    """Returns what a position of a map sees of an image, (height, width, C).

    Args:
      image: (H, W, C).
      field: of the map's positions.
      position: (row, column) on the map.
      fill: what is beyond the image.
    """
    image = np.asarray(image)
    patch = np.full((*field.size, image.shape[-1]), fill, image.dtype)
    source, target = [], []
    for axis, start in enumerate(field.first_pixel(position)):
        low, high = max(start, 0), min(start + field.size[axis], image.shape[axis])
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    patch[tuple(target)] = image[tuple(source)]
    return patch


def plot_filters(kernel: Any, path: str | Path, title: str = "first layer") -> None:
    """Writes a PNG of `filter_grid`."""
    grid = filter_grid(kernel)
    figure = _figure((7, 7 * grid.shape[0] / grid.shape[1] + 0.4))
    axes = figure.subplots()
    axes.imshow(grid, vmin=0, vmax=1, interpolation="nearest")
    axes.set(title=title, xticks=[], yticks=[])
    fonts.save(figure, path, dpi=120)


def plot_feature_maps(module: nn.Module, variables: Any, image: Any, path: str | Path,
                      channels: int = 8, title: str = "") -> None:
    """Writes a PNG of an image and, for every endpoint that is a map, its most active channels.

    Args:
      module: any module of `create_model`'s contract.
      variables: of the module.
      image: (H, W, C), as the model takes it.
      path: of the PNG.
      channels: how many, those of the largest mean magnitude.
      title: above the picture.
    """
    images = np.asarray(image)[None]
    fields = {name: field for name, field in endpoint_fields(module, images.shape).items()
              if not field.sees_all}
    found = _capture(module, tuple(fields), variables, images)
    figure = _figure((1.3 * (channels + 1), 1.45 * (len(fields) + 1)))
    axes = figure.subplots(len(fields) + 1, channels, squeeze=False)
    for cell in axes.ravel():
        cell.axis("off")
    low, high = images.min(), images.max()
    axes[0, 0].imshow(as_rgb((images[0] - low) / max(high - low, 1e-12)))
    axes[0, 0].set_title("image", fontsize=8)
    for line, (name, field) in zip(axes[1:], fields.items(), strict=True):
        maps = np.asarray(found[name][0], np.float32)
        order = np.argsort(-np.abs(maps).mean((0, 1)), kind="stable")[:channels]
        label = f"{name}: {maps.shape[0]}x{maps.shape[1]}, sees {field.size[0]} px\n"
        for cell, channel in zip(line, order, strict=False):
            cell.imshow(maps[..., channel], cmap="viridis")
            cell.set_title(f"{label}channel {channel}", fontsize=7, loc="left")
            label = ""
    figure.suptitle(title)
    fonts.save(figure, path, dpi=120)


def _figure(size):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure


@functools.partial(jax.jit, static_argnums=(0, 1))
def _capture(module, endpoints, variables, images):
    return module.apply(variables, images, train=False, capture=endpoints)[1]
