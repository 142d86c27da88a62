"""Random shifts, scales and rotations, which only features that survive them pass.

An affine map of a picture is done in two passes, along the rows and then along the columns
(Catmull & Smith, SIGGRAPH 1980), each a product with a matrix of interpolation weights. A product
is fast in both directions on every backend; gathering pixels scatters them in the backward pass.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Transforms(NamedTuple):
    """What is drawn at every step, for all images alike, before the network looks.

    Attributes:
      shift: up to so many pixels along each axis.
      scale: up to this fraction larger or smaller.
      rotate: up to so many degrees either way.
      pad: pixels of the mean colour added on every side, so that no part is moved out of sight.

    The defaults are the ranges of Lucid's standard transforms.
    """

    shift: float = 8.0
    scale: float = 0.1
    rotate: float = 10.0
    pad: int = 0


STANDARD = Transforms()
STILL = Transforms(0.0, 0.0, 0.0, 0)


def drawn(key: jax.Array, transforms: Transforms) -> tuple[jax.Array, jax.Array]:
    """Returns a matrix (2, 2) and an offset (2,), a random map of positions (row, column)."""
    shift_key, scale_key, angle_key = jax.random.split(key, 3)
    offset = jax.random.uniform(shift_key, (2,), minval=-1, maxval=1) * transforms.shift
    scale = (1 + transforms.scale) ** jax.random.uniform(scale_key, minval=-1, maxval=1)
    angle = jnp.deg2rad(transforms.rotate) * jax.random.uniform(angle_key, minval=-1, maxval=1)
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    return jnp.array([[cos, -sin], [sin, cos]]), offset


def moved(images: jax.Array, matrix: jax.Array, offset: jax.Array, pad: int = 0) -> jax.Array:
    """Returns images (N, H, W, C) moved by an affine map, padded; zeros lie beyond the border.

        out[position] = images[matrix position + offset],    positions from the centre

    in linear interpolation, first along the rows and then along the columns. A rotation by less
    than 45 degrees is safe, by 90 impossible.

    Args:
      images: (N, H, W, C).
      matrix: (2, 2), for (row, column).
      offset: (2,), in pixels.
      pad: pixels by which the result is larger on every side.
    """
    height, width = images.shape[1:3]
    (e, d), (b, a) = matrix
    f, c = offset
    # The columns' pass reads row e q + d p + f for row q of column p. What the rows' pass has to
    # have there is column a p + b q + c, with q written as a function of the row read.
    y, p = (_centred(n) for n in (height, width + 2 * pad))
    columns = (a - b * d / e) * p + (b / e) * y[:, None] + (c - b * f / e)
    images = jnp.einsum("ypx,nyxc->nypc", _weights(columns, width), images)
    q = _centred(height + 2 * pad)
    rows = e * q + d * p[:, None] + f
    return jnp.einsum("pqy,nypc->nqpc", _weights(rows, height), images)


def _centred(size: int) -> jax.Array:
    return jnp.arange(size) - (size - 1) / 2


def _weights(positions: jax.Array, size: int) -> jax.Array:
    """(…, size), the weight of each of `size` pixels in the linear interpolation at a position."""
    return jnp.maximum(0, 1 - jnp.abs(positions[..., None] - _centred(size)))
