"""A convolution as XLA's own operation.

    y[b, i, j, d] = sum_{u, v, c} x[b, i s + u - p, j s + v - p, c] w[u, v, c, d]

cuDNN, the TPU and XLA:CPU all accumulate bfloat16 products in float32. A float32
`preferred_element_type` would say so, but its transpose multiplies a float32 cotangent with
bfloat16 operands, off the tensor cores, so the operation is left in the input's dtype.
"""

from __future__ import annotations

import jax
from jax import lax

from cnnjax.ops.geometry import ConvGeometry


def applies(g: ConvGeometry) -> bool:
    """Always: this row ends the table."""
    return True


def conv2d(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (h, w, C / groups, D), in the dtype of both."""
    return lax.conv_general_dilated(
        x, kernel, g.stride, g.padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=g.groups)


def input_gradient(dy: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of (B, H, W, C) from that of the output, as JAX transposes `conv2d`."""
    x = jax.ShapeDtypeStruct((dy.shape[0], *g.size, g.in_channels), dy.dtype)
    return jax.linear_transpose(lambda x: conv2d(x, kernel, g), x)(dy)[0]


def weight_gradient(x: jax.Array, dy: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of (h, w, C / groups, D), as JAX transposes `conv2d`."""
    kernel = jax.ShapeDtypeStruct((*g.window, g.in_channels // g.groups, g.out_channels), x.dtype)
    return jax.linear_transpose(lambda kernel: conv2d(x, kernel, g), kernel)(dy)[0]
