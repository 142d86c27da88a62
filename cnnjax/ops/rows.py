"""A convolution with few channels as one matrix product over whole rows of the map.

Along a row, a convolution with padded input row x (W C values) is a product with a Toeplitz matrix:

    y[o, d] = sum_{p, c} x[p, c] T[p, c, o, d],    T[p, c, o, d] = w[p - o s, c, d], or 0 outside

and the rows of a kernel of height h are h such products, or one over h rows side by side:

    (B H', h W C) times (h W C, W' D)

It multiplies W / w times as often as needed, by zeros, and is the faster for being a matrix product
of useful size: one to six channels fill no vector otherwise. T is a product of the kernel with a
constant of zeros and ones, which gives the weight gradient too.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.ops.geometry import ConvGeometry
from cnnjax.ops.product import product

# (input times output channels, how many times the work is multiplied), at most. With few channels
# XLA's own convolution has little to fill a vector with. LeNet-5's layers are at (96, 2.8) and
# (6, 6.4).
LIMITS = ((96, 3), (16, 12))


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
    x = x.reshape(batch, height, width * channels)
    last = g.stride[0] * (rows - 1) + 1
    beside = [lax.slice_in_dim(x, i, i + last, g.stride[0], 1) for i in range(g.window[0])]
    beside = jnp.concatenate(beside, -1)
    placement = jnp.asarray(_placement(width, g), kernel.dtype)
    toeplitz = jnp.einsum("poj,ijcd->ipcod", placement, kernel)
    y = product(beside.reshape(batch * rows, -1), toeplitz.reshape(-1, cols * features))
    return y.reshape(batch, rows, cols, features)


def _placement(width: int, g: ConvGeometry) -> np.ndarray:
    """(padded width, W', w): 1 where tap j of output pixel o meets the padded pixel p."""
    pixel, output, tap = np.ogrid[:width, :g.out[1], :g.window[1]]
    return (pixel == output * g.stride[1] + tap).astype(np.float32)
