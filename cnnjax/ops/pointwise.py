"""A 1x1 convolution as one matrix product over all pixels.

    y[n, d] = sum_c x[n, c] w[c, d],        n = 1 … batch * height * width

A stride drops pixels before the product. XLA:CPU gives a 1x1 convolution no treatment of its own,
and its matrix product is the faster of the two.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops.geometry import ConvGeometry
from cnnjax.ops.product import of_columns, product, wide


def applies(g: ConvGeometry) -> bool:
    """Whether the kernel sees one pixel and no padding, so that a matrix product does it."""
    return g.window == (1, 1) and g.groups == 1 and not g.is_padded


def conv2d(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (1, 1, C, D), in the dtype of both."""
    y = product(_seen(x, g), kernel[0, 0])
    return y.reshape(x.shape[0], *g.out, g.out_channels)


# The three products of `conv2d` by themselves, in float32 at least, for factors of bfloat16.

def output(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (1, 1, C, D)."""
    y = wide(_seen(x, g), kernel[0, 0], 1, 0)
    return y.reshape(x.shape[0], *g.out, g.out_channels)


def input_gradient(dy: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of (B, H, W, C) from that of the output."""
    dx = wide(dy.reshape(-1, g.out_channels), kernel[0, 0], 1, 1)
    dx = dx.reshape(dy.shape[0], *g.out, g.in_channels)
    # Zeros at the pixels that a stride drops.
    edges = [(0, size - step * (out - 1) - 1, step - 1)
             for size, step, out in zip(g.size, g.stride, g.out, strict=True)]
    return lax.pad(dx, jnp.zeros((), dx.dtype), ((0, 0, 0), *edges, (0, 0, 0)))


def weight_gradient(x: jax.Array, dy: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of the kernel, (1, 1, C, D)."""
    return of_columns(_seen(x, g), dy.reshape(-1, g.out_channels))[None, None]


def _seen(x, g):
    return x[:, ::g.stride[0], ::g.stride[1]].reshape(-1, g.in_channels)
