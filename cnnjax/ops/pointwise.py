"""A 1x1 convolution as one matrix product over all pixels.

    y[n, d] = sum_c x[n, c] w[c, d],        n = 1 … batch * height * width

A stride drops pixels before the product. XLA:CPU gives a 1x1 convolution no treatment of its own,
and its matrix product is the faster of the two.
"""

from __future__ import annotations

import jax

from cnnjax.ops.geometry import ConvGeometry
from cnnjax.ops.product import product


def applies(g: ConvGeometry) -> bool:
    """Whether the kernel sees one pixel and no padding, so that a matrix product does it."""
    return g.window == (1, 1) and g.groups == 1 and not g.is_padded


def conv2d(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (1, 1, C, D), in the dtype of both."""
    x = x[:, ::g.stride[0], ::g.stride[1]]
    y = product(x.reshape(-1, g.in_channels), kernel[0, 0])
    return y.reshape(x.shape[0], *g.out, g.out_channels)
