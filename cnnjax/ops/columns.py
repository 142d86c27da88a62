"""A convolution as one matrix product over its windows: im2col, and col2im for the gradient.

    y[p] = sum over t of x[p s + t] w[t] = X[p] W,    X[p] = the h w C values that window p sees

with X of (B H' W', h w C) and W the kernel as (h w C, D). The transpose of it gives the input
gradient, a product dy W^T whose columns are added where the windows overlap; the weight gradient
is X^T dy, with X^T made of a map that is transposed once.

It is for factors of bfloat16, and for strides above 1 or windows of 5x5; results are float32 at
least. With a stride XLA:CPU's own convolution of float32 takes 1.3 to 2.5 times as long (3x3 of 64
to 256 channels on maps of 8 to 56 pixels), and of 5x5 `winograd`, which there does at best 2.8
times fewer products and not 4, takes 1.3 to 1.5 times as long (64 to 192 channels, 27 pixels). Of
3x3 at stride 1 `winograd` is faster. Of 5x5 with up to 4 positions most taps see padding:
`tiny_maps`, which leaves those out, takes 0.08 to 0.5 of the time.
Source: Chellapilla, Puri and Simard, High performance convolutional neural networks for document
processing, IWFHR 2006.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from cnnjax.ops import tiny_maps
from cnnjax.ops.chunks import images_of, map_images, map_sum
from cnnjax.ops.geometry import ConvGeometry, overlap_add, windows
from cnnjax.ops.precision import sum_dtype
from cnnjax.ops.product import wide

MIN_CHANNELS = 16  # With fewer the products are too thin.
PIXELS = 2048  # Of the output in a part: its windows stay in the cache.


def applies(g: ConvGeometry) -> bool:
    """Whether it has a stride or a large window, and channels and positions enough."""
    if min(g.window) > 3:
        gains = math.prod(g.out) > tiny_maps.MAX_POSITIONS
    else:
        gains = g.window != (1, 1) and max(g.stride) > 1
    return gains and g.groups == 1 and min(g.in_channels, g.out_channels) >= MIN_CHANNELS


def output(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (h, w, C, D)."""
    kernel = kernel.reshape(-1, g.out_channels)

    def part(x):
        seen = jnp.concatenate(windows(x, g), -1).reshape(-1, kernel.shape[0])
        y = wide(seen, kernel, 1, 0)
        return y.reshape(x.shape[0], *g.out, g.out_channels)

    y = jax.ShapeDtypeStruct((*g.out, g.out_channels), sum_dtype(x.dtype))
    return map_images(part, x, _images(g), y)


def input_gradient(dy: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of (B, H, W, C) from that of the output."""
    kernel = kernel.reshape(-1, g.out_channels)

    def part(dy):
        seen = wide(dy.reshape(-1, g.out_channels), kernel, 1, 1)
        seen = seen.reshape(dy.shape[0], *g.out, g.window[0] * g.window[1], g.in_channels)
        taps = [seen[..., t, :] for t in range(g.window[0] * g.window[1])]
        return overlap_add(taps, [0.0] * len(taps), g, lambda t, *shifted: shifted[t])

    dx = jax.ShapeDtypeStruct((*g.size, g.in_channels), sum_dtype(dy.dtype))
    return map_images(part, dy, _images(g), dx)


def weight_gradient(x: jax.Array, dy: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of the kernel, (h, w, C, D)."""
    def part(x, dy):
        channels_first = jnp.pad(x.transpose(3, 0, 1, 2), ((0, 0), (0, 0), *g.padding))
        dy = dy.reshape(-1, g.out_channels)
        (rows, cols), (step_h, step_w) = g.out, g.stride
        taps = [channels_first[:, :, i:i + step_h * (rows - 1) + 1:step_h,
                       j:j + step_w * (cols - 1) + 1:step_w]
                for i in range(g.window[0]) for j in range(g.window[1])]
        seen = jnp.concatenate([tap.reshape(g.in_channels, -1) for tap in taps])
        return wide(seen, dy, 1, 0).reshape(*g.window, g.in_channels, g.out_channels)

    return map_sum(part, (x, dy), _images(g), g.kernel_shape)


def _images(g: ConvGeometry) -> int:
    return images_of(PIXELS, g.out)
