"""A strided convolution of few channels as one of stride 1 over blocks of pixels.

With blocks of s by s pixels, one block a row of s^2 C channels,

    X[p, (a, b, c)] = x[s p + (a, b), c],    W[u, (a, b, c)] = w[s u + (a, b), c]

(w filled up with zeros to a multiple of s), a convolution of stride s is one of stride 1:

    y[p] = sum_t x[s p + t] w[t] = sum_u X[p + u] W[u]

Matrix units take channels in groups of eight: of an RGB image they use three. Blocks of 2 by 2 make
twelve, filled up to sixteen. Ying et al., arXiv 1811.06992, section 4, do it for ResNet on a TPU.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.ops import xla
from cnnjax.ops.geometry import ConvGeometry

# Channels of a block are filled up to a multiple of it.
_GROUP = 8


def applies(g: ConvGeometry) -> bool:
    """Whether the channels are fewer than a matrix unit takes at a time, and there is a stride."""
    return g.groups == 1 and g.in_channels <= 4 and g.stride[0] == g.stride[1] > 1


def conv2d(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (h, w, C, D), in the dtype of both."""
    step = g.stride[0]
    taps = [-(-window // step) for window in g.window]
    blocks = [out + tap - 1 for out, tap in zip(g.out, taps, strict=True)]
    edges = [(low, step * count - size - low)
             for (low, _), count, size in zip(g.padding, blocks, g.size, strict=True)]
    # Rows and columns that no window sees are cut off by a negative edge.
    x = jax.lax.pad(x, jnp.zeros((), x.dtype),
                    ((0, 0, 0), *((low, high, 0) for low, high in edges), (0, 0, 0)))
    x = _blocks(x, step)
    kernel = jnp.pad(kernel, (*((0, tap * step - window)
                                for tap, window in zip(taps, g.window, strict=True)),
                              (0, 0), (0, 0)))
    kernel = jnp.moveaxis(_blocks(jnp.moveaxis(kernel, 3, 0), step), 0, 3)
    inner = ConvGeometry(size=tuple(blocks), window=tuple(taps), stride=(1, 1),
                         padding=((0, 0), (0, 0)), in_channels=x.shape[3],
                         out_channels=g.out_channels, groups=1)
    return xla.conv2d(x, kernel, inner)


def _blocks(x, step):
    """(B, s H, s W, C) -> (B, H, W, s^2 C, filled up)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // step, step, width // step, step, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // step, width // step, -1)
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, -x.shape[3] % _GROUP)))
