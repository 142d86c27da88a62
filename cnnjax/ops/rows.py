"""A convolution with few channels as one matrix product over rows of the map, or parts of rows.

Along a row, a convolution with padded input row x (W C values) is a product with a Toeplitz matrix:

    y[o, d] = sum_{p, c} x[p, c] T[p, c, o, d],    T[p, c, o, d] = w[p - o s, c, d], or 0 outside

and the rows of a kernel of height h are h such products, or one over h rows side by side:

    (B H', h W C) times (h W C, W' D)

It multiplies W / w times as often as needed, by zeros, and is the faster for being a matrix product
of useful size: one to six channels fill no vector otherwise. Where a row's W' D outputs are more
than such a size needs, the row is cut into equal parts, which overlap in the input, and a part's T
is smaller in both directions. At stride 1:

    (B H' parts, h (W'/parts + w - 1) C) times (h (W'/parts + w - 1) C, W'/parts D)

T is a product of the kernel with a constant of zeros and ones, which gives the weight gradient too.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.ops.geometry import ConvGeometry
from cnnjax.ops.product import product

# (input times output channels, how many times the work is multiplied), at most. With few channels
# XLA's own convolution has little to fill a vector with. LeNet-5's layers are at (96, 2.8) and
# (6, 6.4).
LIMITS = ((96, 3), (16, 12))
# Columns of the product that a part of a row keeps. A step of LeNet-5 takes 0.84 of its time with
# parts of 42 and 80 columns instead of rows of 168 and 160; parts of 32 gained nothing.
LEAST_COLUMNS = 40


def applies(g: ConvGeometry) -> bool:
    """Whether it is a convolution of few channels on narrow maps."""
    channels = g.in_channels * g.out_channels
    waste = (g.size[1] + sum(g.padding[1])) / g.window[1]
    return g.groups == 1 and any(channels <= most and waste <= limit for most, limit in LIMITS)


def conv2d(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (h, w, C, D), in the dtype of both."""
    x = jnp.pad(x, ((0, 0), *g.padding, (0, 0)))
    batch, height, width, channels = x.shape
    (rows, cols), features = g.out, g.out_channels
    parts = _parts(g)
    outputs = cols // parts
    inputs = g.stride[1] * (outputs - 1) + g.window[1]
    x = x.reshape(batch, height, width * channels)
    pieces = _cut(x, (parts, g.stride[1] * outputs * channels, inputs * channels))
    last = g.stride[0] * (rows - 1) + 1
    beside = jnp.concatenate([pieces[:, i:i + last:g.stride[0]] for i in range(g.window[0])], -1)
    beside = beside.reshape(batch * rows * parts, g.window[0] * inputs * channels)
    placement = jnp.asarray(_placement(inputs, outputs, g), kernel.dtype)
    toeplitz = jnp.einsum("poj,ijcd->ipcod", placement, kernel)
    y = product(beside, toeplitz.reshape(-1, outputs * features))
    return y.reshape(batch, rows, cols, features)


def _parts(g: ConvGeometry) -> int:
    """Into how many a row is cut: as many as leave each its columns."""
    cols = g.out[1]
    return max((n for n in range(1, cols + 1)
                if cols % n == 0 and cols // n * g.out_channels >= LEAST_COLUMNS), default=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _cut(x: jax.Array, sizes: tuple[int, int, int]) -> jax.Array:
    """Cuts (B, H, N) into pieces of a row that overlap: (B, H, parts, length).

    `sizes` are the number of parts, the step from one to the next, and the length.
    """
    parts, step, length = sizes
    pieces = [x[..., i * step:i * step + length] for i in range(parts)]
    return jnp.concatenate(pieces, -1).reshape(*x.shape[:2], parts, length)


def _cut_forward(x, sizes):
    return _cut(x, sizes), x.shape[-1]


def _cut_backward(sizes, width, dy):
    # A product with a constant of zeros and ones. As a sum of padded pieces XLA would compute it
    # again wherever the gradient is read, and four times as often where a pool spreads it.
    parts, step, length = sizes
    position, part, place = np.ogrid[:width, :parts, :length]
    back = (position == part * step + place).astype(np.float32).reshape(width, -1)
    flat = dy.reshape(-1, parts * length)
    return (product(flat, jnp.asarray(back.T, dy.dtype)).reshape(*dy.shape[:2], width),)


_cut.defvjp(_cut_forward, _cut_backward)


def _placement(inputs: int, outputs: int, g: ConvGeometry) -> np.ndarray:
    """(inputs, outputs, w): 1 where tap j of output pixel o meets the padded pixel p of a part."""
    pixel, output, tap = np.ogrid[:inputs, :outputs, :g.window[1]]
    return (pixel == output * g.stride[1] + tap).astype(np.float32)
