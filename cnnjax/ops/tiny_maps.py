"""A convolution with one to four output positions, as one matrix product for each position.

At position p the window covers the valid pixels V(p) and meets the taps K(p) of the kernel:

    y[b, p, :] = x[b, V(p)] w[K(p)]        (B, |V| C) times (|V| C, D)

Taps that only see padding are never multiplied: a 3x3 kernel on a 2x2 map does 4 of its 9 taps at
each position, on a 1x1 map one; a general convolution does all 9. The deep stages of a ResNet on
32 px images are of this kind, and on CPU they would otherwise take most of its training step.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from cnnjax.ops.geometry import ConvGeometry
from cnnjax.ops.product import product

MAX_POSITIONS = 4
# Below it the products are too thin to pay for cutting the kernel.
MIN_CHANNELS = 16


def applies(g: ConvGeometry) -> bool:
    """Whether the output has few positions and the input enough channels to fill a product."""
    return (g.groups == 1 and g.out[0] * g.out[1] <= MAX_POSITIONS
            and g.in_channels >= MIN_CHANNELS)


def _valid(position: int, axis: int, g: ConvGeometry) -> tuple[slice, slice]:
    """The pixels that the window sees along an axis, and the taps that see them."""
    start = position * g.stride[axis] - g.padding[axis][0]
    first = max(start, 0)
    # A window that sees padding alone has no pixel and no tap: its product sums nothing.
    last = max(first, min(start + g.window[axis], g.size[axis]))
    return slice(first, last), slice(first - start, last - start)


def conv2d(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (h, w, C, D), in the dtype of both."""
    outputs = []
    for i in range(g.out[0]):
        rows, taps_h = _valid(i, 0, g)
        for j in range(g.out[1]):
            cols, taps_w = _valid(j, 1, g)
            seen, taps = x[:, rows, cols], kernel[taps_h, taps_w]
            terms = math.prod(taps.shape[:3])
            outputs.append(product(seen.reshape(x.shape[0], terms),
                                   taps.reshape(terms, g.out_channels)))
    return jnp.stack(outputs, 1).reshape(x.shape[0], *g.out, g.out_channels)
