"""A convolution with few output positions, as one matrix product for each position.

At position p the window covers the valid pixels V(p) and meets the taps K(p) of the kernel:

    y[b, p, :] = x[b, V(p)] w[K(p)]        (B, |V| C) times (|V| C, D)

Taps that only see padding are never multiplied: a 3x3 kernel on a 2x2 map does 4 of its 9 taps at
each position, on a 1x1 map one; a general convolution does all 9. The deep stages of a ResNet on
32 px images are of this kind, and on CPU they would otherwise take most of its training step. Of
a window with more taps than the map has pixels, as 5x5 of `googlenet_original` at 96 px, XLA:CPU
takes 3 to 90 times as long forward, and 2.5 to 40 times with the gradients (up to 4x4 pixels).

The gradient of a tap t is one product over the positions P(t) at which it sees a pixel:

    dw[t] = x[:, P(t) s + t - padding]^T dy[:, P(t)]        (C, B |P|) times (B |P|, D)

The transpose of the above would be as much work in fewer products, |K| taps at a time, but then the
kernel's gradient is a sum of overlapping pieces, which takes XLA:CPU longer than the products.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from cnnjax.ops.geometry import ConvGeometry
from cnnjax.ops.product import contract, product

MAX_POSITIONS = 4
# Of a window with more taps than the map has pixels.
MAX_POSITIONS_OF_LARGE = 16
# Below it the products are too thin to pay for cutting the kernel.
MIN_CHANNELS = 16


def applies(g: ConvGeometry) -> bool:
    """Whether the output has few positions and the input enough channels to fill a product."""
    large = math.prod(g.window) > math.prod(g.size)
    return (g.groups == 1 and g.in_channels >= MIN_CHANNELS
            and math.prod(g.out) <= (MAX_POSITIONS_OF_LARGE if large else MAX_POSITIONS))


def output(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (h, w, C, D), in the dtype of both."""
    outputs = []
    for i in range(g.out[0]):
        rows, taps_h = _seen(i, 0, g)
        for j in range(g.out[1]):
            cols, taps_w = _seen(j, 1, g)
            seen, taps = x[:, rows, cols], kernel[taps_h, taps_w]
            terms = math.prod(taps.shape[:3])
            outputs.append(product(seen.reshape(x.shape[0], terms),
                                   taps.reshape(terms, g.out_channels)))
    return jnp.stack(outputs, 1).reshape(x.shape[0], *g.out, g.out_channels)


def input_gradient(dy: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of (B, H, W, C) from that of the output."""
    x = jnp.zeros((dy.shape[0], *g.size, g.in_channels), dy.dtype)
    return jax.vjp(lambda x: output(x, kernel, g), x)[1](dy)[0]


def weight_gradient(x: jax.Array, dy: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of the kernel, (h, w, C, D)."""
    taps = []
    for i in range(g.window[0]):
        rows, out_rows = _seen_by(i, 0, g)
        for j in range(g.window[1]):
            cols, out_cols = _seen_by(j, 1, g)
            taps.append(contract(x[:, rows, cols].reshape(-1, g.in_channels),
                                 dy[:, out_rows, out_cols].reshape(-1, g.out_channels), 0, 0))
    return jnp.stack(taps).reshape(*g.window, g.in_channels, g.out_channels)


def _seen(position: int, axis: int, g: ConvGeometry) -> tuple[slice, slice]:
    """The pixels that the window sees along an axis, and the taps that see them."""
    start = position * g.stride[axis] - g.padding[axis][0]
    first = max(start, 0)
    # A window that sees padding alone has no pixel and no tap: its product sums nothing.
    last = max(first, min(start + g.window[axis], g.size[axis]))
    return slice(first, last), slice(first - start, last - start)


def _seen_by(tap: int, axis: int, g: ConvGeometry) -> tuple[slice, slice]:
    """The pixels that a tap sees along an axis, and the positions at which it sees them."""
    step, start = g.stride[axis], tap - g.padding[axis][0]
    positions = [p for p in range(g.out[axis]) if 0 <= p * step + start < g.size[axis]]
    if not positions:
        return slice(0, 0), slice(0, 0)
    first, last = positions[0], positions[-1]
    return (slice(first * step + start, last * step + start + 1, step), slice(first, last + 1))
