"""Filters and resamplings along one axis, as matrices: exact, and the fastest on an accelerator.

A matrix M of shape (out, in) maps a column of pixels; `apply` uses one for the rows and one for
the columns. They are made with NumPy, when a function is traced.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


def apply(rows: np.ndarray, columns: np.ndarray, image: jax.Array) -> jax.Array:
    """Returns rows @ image @ columns^T of each channel: [H, W, C] -> [H', W', C]."""
    return jnp.einsum("yh,hwc,xw->yxc", jnp.asarray(rows, jnp.float32), image,
                      jnp.asarray(columns, jnp.float32), precision="highest")


def gaussian(size: int, sigma: float, mode: str, truncate: float = 4.0) -> np.ndarray:
    """Returns scipy.ndimage's Gaussian filter of an axis.

    Args:
      size: of the axis.
      sigma: standard deviation in pixels; 0 leaves the axis alone.
      mode: what lies beyond the edge: "nearest", the outermost pixel, or "reflect", the mirror
        image with the outermost pixel twice.
      truncate: radius of the filter in sigmas.
    """
    if not sigma:
        return np.eye(size)
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    place = np.arange(size)[:, None] + offsets
    if mode == "nearest":
        place = np.clip(place, 0, size - 1)
    else:
        place = place % (2 * size)
        place = np.minimum(place, 2 * size - 1 - place)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], place), weights)
    return matrix


def clipped_zoom(size: int, factor: float) -> np.ndarray:
    """Returns the enlargement of the middle of an axis, cut to its size again.

    The middle ceil(size / factor) pixels are enlarged linearly by scipy.ndimage.zoom, whose first
    and last pixels are those of what it enlarges.
    """
    kept = math.ceil(size / factor)
    top, length = (size - kept) // 2, round(kept * factor)
    trim = (length - size) // 2
    at = (np.arange(size) + trim) * (kept - 1) / max(1, length - 1)
    low = np.minimum(at.astype(int), max(0, kept - 2))
    matrix = np.zeros((size, size))
    matrix[np.arange(size), top + low] = 1 - (at - low)
    matrix[np.arange(size), top + np.minimum(low + 1, kept - 1)] += at - low
    return matrix


def box(size: int, out: int) -> np.ndarray:
    """Returns Pillow's resizing with the box filter: the mean of the pixels under each new one."""
    scale = size / out
    support = 0.5 * max(1.0, scale)
    matrix = np.zeros((out, size))
    for i in range(out):
        centre = (i + 0.5) * scale
        low, high = max(0, int(centre - support + 0.5)), min(size, int(centre + support + 0.5))
        at = (np.arange(low, high) - centre + 0.5) / max(1.0, scale)
        matrix[i, low:high] = (at > -0.5) & (at <= 0.5)
    return matrix / matrix.sum(1, keepdims=True)
