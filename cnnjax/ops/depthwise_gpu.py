"""A depthwise convolution by kernels of its own on a GPU: which shapes, and in what tiles.

A depthwise convolution does k^2 multiply-adds a value and is bound by memory. `depthwise_kernels`
moves the least bytes: each map is read once and written once. The input gradient of a strided one
is otherwise a pass that pads and a dense one.

What a program computes is chosen here. More rows of a tile share the rows between them; more
columns in a tile share the columns at its edges; wide chunks of channels make long loads. Lanes
beyond the edge of a map do nothing.
"""

from __future__ import annotations

import jax

from cnnjax.ops import xla
from cnnjax.ops.geometry import ConvGeometry

# The programs of a weight gradient: several for each multiprocessor, few enough for short sums.
_PROGRAMS = 1056


def applies(g: ConvGeometry) -> bool:
    """Whether each channel has one kernel, small enough for registers, and loads are of 16 bytes.

    XLA does not divide a kernel of ours among devices: with several, the batch would be gathered.
    """
    return (g.groups == g.in_channels == g.out_channels and g.in_channels % 8 == 0
            and max(g.window) <= 5 and max(g.stride) <= 2 and jax.device_count() == 1)


def outputs_here(g: ConvGeometry) -> bool:
    """Whether the kernel of this file is faster than XLA's convolution."""
    return True


def input_gradients_here(g: ConvGeometry) -> bool:
    """Whether the kernel of this file is faster than XLA's input gradient."""
    return True


def weight_gradients_here(g: ConvGeometry) -> bool:
    """Whether the kernel of this file is faster than XLA's weight gradient."""
    return True


def output(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (h, w, 1, C)."""
    if not outputs_here(g):
        return xla.conv2d(x, kernel, g)
    return _kernels().output(x, kernel, g, output_tiles(g))


def input_gradient(dy: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of (B, H, W, C) from that of the output."""
    if not input_gradients_here(g):
        return xla.input_gradient(dy, kernel, g)
    return _kernels().input_gradient(dy, kernel, g, input_gradient_tiles(g))


def weight_gradient(x: jax.Array, dy: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of the kernel, (h, w, 1, C)."""
    if not weight_gradients_here(g):
        return xla.weight_gradient(x, dy, g)
    return _kernels().weight_gradient(x, dy, g, weight_gradient_tiles(g))


def output_tiles(g: ConvGeometry, elements: int = 1024):
    """Returns the tiles of `output`: 8 values a thread."""
    channels = _chunk(g.in_channels, g.out[1], g.stride[1], g.window[1], elements)
    rows = _rows(g.out[0], 7 if g.stride[0] == 1 else 4)
    return _kernels().Tiles(channels, elements, rows, warps=elements // 256)


def input_gradient_tiles(g: ConvGeometry, elements: int = 1024):
    """Returns the tiles of `input_gradient`, whose rows and columns are blocks of the stride."""
    rows, cols = (-(-size // step) for size, step in zip(g.size, g.stride, strict=True))
    channels = _chunk(g.in_channels, cols, 1, -(-g.window[1] // g.stride[1]), elements)
    rows = _rows(rows, 7 if g.stride[0] == 1 else 2)
    return _kernels().Tiles(channels, elements, rows, warps=elements // 256)


def weight_gradient_tiles(g: ConvGeometry):
    """Returns the tiles of `weight_gradient`: values a thread that leave room for sums."""
    values = 8 if g.window[0] * g.window[1] <= 9 else 4
    # A power of two, so that a program can add the columns of its tile.
    channels = max(c for c in (8, 16, 32, 64, 128) if g.in_channels % c == 0)
    # As many columns as the map has, in at most 4 warps.
    elements = 32 * values
    while elements < 128 * values and elements < g.out[1] * channels:
        elements *= 2
    parts = max(1, _PROGRAMS * channels // g.in_channels)
    return _kernels().Tiles(channels, elements, _rows(g.out[0], 4),
                            warps=elements // (32 * values), parts=parts)


def _chunk(channels, cols, step, window, elements):
    """How many channels a tile has: those that waste the fewest lanes and bytes."""
    def cost(chunk):
        spans = -(-cols * chunk // elements)
        abreast = min(cols, elements / chunk)
        idle = spans * elements / (cols * chunk)
        again = (step * abreast + max(0, window - step)) / (step * abreast)
        short = 1 if chunk == channels else 1 + 8 / chunk
        return idle * again * short

    # 16 channels of bfloat16 are a sector of 32 bytes: no two programs write parts of one.
    unit = 16 if channels % 16 == 0 else 8
    return min((c for c in range(unit, channels + 1, unit) if channels % c == 0), key=cost)


def _rows(rows, most):
    """The number of rows up to `most` with the fewest beyond the edge, and the largest of those."""
    return min(range(1, most + 1), key=lambda n: (-(-rows // n) * n / rows + 0.5 / n))


def _kernels():
    # Pallas takes a while to import, and only GPUs need it.
    from cnnjax.ops import depthwise_kernels
    return depthwise_kernels
