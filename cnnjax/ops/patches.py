"""The weight gradient of a convolution of few channels as one matrix product over patches.

    dw[t, c] = sum over batch and p of P[p, (t, c)]^T dy[p],        P[p, (t, c)] = x[p s + t, c]

An image has one to three channels, which fill no vector, and XLA:CPU makes this weight gradient by
a convolution whose kernel is as large as the map. Here the window of each output pixel is written
out beside those of its neighbours, h w C values a pixel:

    (h w' C, B H' W') times (B H' W', D)

A row of the map is cut into blocks of one stride, which is a reshape and moves nothing; w / stride
blocks, rounded up, hold a window's columns, so w' is w rounded up to a multiple of the stride, and
what stands in the surplus columns is dropped from the result. The output and the input gradient
are XLA's own.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops.chunks import images_of, map_sum
from cnnjax.ops.geometry import ConvGeometry
from cnnjax.ops.product import wide

# The channels of an image; below this size of the result there is too little to gain.
MAX_CHANNELS, MIN_SIZE = 4, 14
# Patches of about this many output pixels are a few megabytes, and stay in the cache.
PIXELS = 4096


def applies(g: ConvGeometry) -> bool:
    """Whether it is a convolution of an image, of a kernel that sees more than a pixel."""
    return (g.groups == 1 and g.in_channels <= MAX_CHANNELS and g.window != (1, 1)
            and min(g.out) >= MIN_SIZE)


def weight_gradient(x: jax.Array, dy: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of the kernel, (h, w, C, D)."""
    blocks = -(-g.window[1] // g.stride[1])
    shape = (g.window[0], blocks * g.stride[1], g.in_channels, g.out_channels)

    def part(x, dy):
        seen = _patches(x, g, blocks)
        dw = wide(seen.reshape(-1, seen.shape[-1]), dy.reshape(-1, g.out_channels), 0, 0)
        return dw.reshape(shape)[:, :g.window[1]]

    dw = map_sum(part, (x, dy), images_of(PIXELS, g.out), g.kernel_shape)
    return dw.astype(x.dtype)


def _patches(x: jax.Array, g: ConvGeometry, blocks: int) -> jax.Array:
    """(B, H, W, C) -> (B, H', W', h · blocks · stride · C)."""
    (step_h, step_w), (rows, cols) = g.stride, g.out
    (top, bottom), (left, _) = g.padding
    width = (cols + blocks - 1) * step_w
    # The last columns may be seen by no window: then the padding on the right is negative.
    x = lax.pad(x, jnp.zeros((), x.dtype), (
        (0, 0, 0), (top, bottom, 0), (left, width - left - g.size[1], 0), (0, 0, 0)))
    x = x.reshape(*x.shape[:2], width // step_w, step_w * g.in_channels)
    beside = jnp.concatenate([x[:, :, j:j + cols] for j in range(blocks)], -1)
    return jnp.concatenate([
        lax.slice_in_dim(beside, i, i + step_h * (rows - 1) + 1, step_h, 1)
        for i in range(g.window[0])], -1)
