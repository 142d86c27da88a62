"""Pooling, and the ways to compute it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.ops import argmax_pool, switch
from cnnjax.ops.geometry import Geometry, Padding, geometry
from cnnjax.ops.precision import widened
from cnnjax.types import UserError

_MOST_ADDITIONS = 16  # A window's pixels, up to which `avg_pool` adds them one by one.


def max_pool(x: jax.Array, window: int | Sequence[int], stride: int | Sequence[int] | None = None,
             padding: Padding = 0) -> jax.Array:
    """Returns the maximum of each window. Padding counts as minus infinity, as in torch.

    Args:
      x: (B, H, W, C), floating point.
      window: in pixels, one number or (height, width).
      stride: as `window`; None is the window itself.
      padding: as in `conv2d`, each side less than the window.

    Returns:
      (B, H', W', C) in x's dtype, with H' = floor((H + top + bottom - h) / stride) + 1. Where
      several pixels attain the maximum, the gradient goes to the first in row-major order.

    Raises:
      UserError: if the window does not fit the padded map, or would see padding alone.
    """
    g = _geometry("max_pool", x, window, stride, padding)
    # Measured on a GPU for ResNet's stem alone; overlapping windows of stride 1 have more taps.
    backends = ("cpu", "gpu") if max(g.stride) > 1 else ("cpu",)
    if switch.tuned_for(*backends, name="max_pool", operands=[x]) and argmax_pool.applies(g):
        return argmax_pool.max_pool(x, g)
    return lax.reduce_window(x, -jnp.inf, lax.max, *_reduce_window_arguments(g))


def avg_pool(x: jax.Array, window: int | Sequence[int], stride: int | Sequence[int] | None = None,
             padding: Padding = 0, count_include_pad: bool = True) -> jax.Array:
    """Returns the mean of each window.

    Args:
      x: (B, H, W, C), floating point.
      window: in pixels, one number or (height, width).
      stride: as `window`; None is the window itself.
      padding: as in `conv2d`, each side less than the window.
      count_include_pad: whether padding counts as zeros in the mean (torch's default) or windows
        at the border divide by the number of pixels they see (TensorFlow's and Keras's).

    Returns:
      (B, H', W', C) in x's dtype, with H' = floor((H + top + bottom - h) / stride) + 1. Sums are
      accumulated in float32 at least.

    Raises:
      UserError: if the window does not fit the padded map, or would see padding alone.
    """
    g = _geometry("avg_pool", x, window, stride, padding)
    if (switch.tuned_for("cpu", name="avg_pool", operands=[x]) and g.window == g.stride
            and not g.is_padded):
        return _mean_of_blocks(x, g)
    total = lax.reduce_window(widened(x), 0.0, lax.add, *_reduce_window_arguments(g))
    count = math.prod(g.window) if count_include_pad or not g.is_padded else _pixels_seen(g)
    return (total / count).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _mean_of_blocks(x: jax.Array, g: Geometry) -> jax.Array:
    """Windows that tile the map: sums over their rows, then over their columns.

    Additions are fused with what comes before and after. XLA:CPU's reduction over two axes is not,
    and takes four times as long where a window has few pixels.
    """
    (rows, cols), (height, width) = g.out, g.window
    batch, channels, dtype = x.shape[0], x.shape[3], x.dtype
    x = widened(x[:, :rows * height, :cols * width])
    if height * width > _MOST_ADDITIONS:
        blocks = x.reshape(batch, rows, height, cols, width, channels)
        return blocks.mean((2, 4)).astype(dtype)
    x = x.reshape(batch, rows, height, cols * width * channels)
    x = functools.reduce(jnp.add, [x[:, :, i] for i in range(height)])
    x = x.reshape(batch, rows, cols, width, channels)
    x = functools.reduce(jnp.add, [x[:, :, :, i] for i in range(width)])
    return (x / (height * width)).astype(dtype)


def _mean_of_blocks_forward(x, g):
    return _mean_of_blocks(x, g), None


def _mean_of_blocks_backward(g, _, dy):
    # Autodiff would add padded maps, one for each pixel of a window.
    (rows, cols), (height, width) = g.out, g.window
    batch, channels = dy.shape[0], dy.shape[3]
    dx = jnp.broadcast_to((dy / (height * width))[:, :, None, :, None],
                          (batch, rows, height, cols, width, channels))
    dx = dx.reshape(batch, rows * height, cols * width, channels)
    beyond = ((0, size - inside) for size, inside in zip(g.size, dx.shape[1:3], strict=True))
    return (jnp.pad(dx, ((0, 0), *beyond, (0, 0))),)


_mean_of_blocks.defvjp(_mean_of_blocks_forward, _mean_of_blocks_backward)


def _pixels_seen(g: Geometry) -> np.ndarray:
    """(1, H', W', 1): how many real pixels each window sees."""
    def along(axis):
        start = np.arange(g.out[axis]) * g.stride[axis] - g.padding[axis][0]
        return np.minimum(start + g.window[axis], g.size[axis]) - np.maximum(start, 0)
    return np.multiply.outer(along(0), along(1)).astype(np.float32)[None, :, :, None]


def _reduce_window_arguments(g: Geometry):
    return (1, *g.window, 1), (1, *g.stride, 1), ((0, 0), *g.padding, (0, 0))


def _geometry(op, x, window, stride, padding) -> Geometry:
    g = geometry(op, "window", x, window, window if stride is None else stride, padding)
    if any(max(pads) >= size for pads, size in zip(g.padding, g.window, strict=True)):
        raise UserError(f"{op}: padding {g.padding} of a {g.window[0]}x{g.window[1]} window makes "
                        "some windows see padding alone; keep each side smaller than the window.")
    return g
