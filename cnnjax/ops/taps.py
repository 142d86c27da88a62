"""The gradients of a convolution as matrix products: that of the weights as one product a tap.

    dw[t] = sum over batch and p of x[p s + t]^T dy[p]        (C, B H' W') times (B H' W', D)

XLA:CPU makes this weight gradient by a convolution whose kernel is as large as the map, which is
1.5 to 9 times slower than the products, most of all for few channels on a large map.

It makes the input gradient of a strided convolution by one of dy with zeros between its pixels,
and multiplies by them: the transpose of `columns` takes 0.6 to 0.9 of its time. The output, and the
input gradient without a stride, are XLA's own.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.ops import columns, xla
from cnnjax.ops.chunks import images_of, map_sum
from cnnjax.ops.geometry import ConvGeometry, windows
from cnnjax.ops.product import wide

# Below these the products are too thin, or too many for the work in them: on smaller maps the
# channels have to be more.
MIN_CHANNELS, MIN_SIZE = 16, 7
MANY_CHANNELS, MIN_SIZE_OF_MANY = 256, 4
# The window of each tap is copied out of the map: parts of about this many output pixels keep the
# copies in the cache.
PIXELS = 4096


def applies(g: ConvGeometry) -> bool:
    """Whether it has channels and pixels enough for a product a tap."""
    many = min(g.in_channels, g.out_channels) >= MANY_CHANNELS
    return (g.groups == 1 and g.window != (1, 1) and g.in_channels >= MIN_CHANNELS
            and min(g.out) >= (MIN_SIZE_OF_MANY if many else MIN_SIZE))


def input_gradient(dy: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of (B, H, W, C) from that of the output."""
    if not columns.applies(g):
        return xla.input_gradient(dy, kernel, g)
    return columns.input_gradient(dy, kernel, g).astype(dy.dtype)


def weight_gradient(x: jax.Array, dy: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of the kernel, (h, w, C, D)."""
    def part(x, dy):
        dy = dy.reshape(-1, g.out_channels)
        products = [wide(seen.reshape(-1, g.in_channels), dy, 0, 0) for seen in windows(x, g)]
        return jnp.stack(products).reshape(*g.window, g.in_channels, g.out_channels)

    dw = map_sum(part, (x, dy), images_of(PIXELS, g.out), g.kernel_shape)
    return dw.astype(x.dtype)
