"""A depthwise convolution by kernels of its own on a GPU: which shapes, and in what tiles.

A depthwise convolution does k^2 multiply-adds a value and is bound by memory. `depthwise_kernels`
moves the least bytes: each map is read once and written once. The input gradient of a strided one
is otherwise a pass that pads and a dense one: for 96 channels at 112 pixels, batch 256, 933 us on
an H200, where the kernel takes 200. The weight gradient stays cuDNN's: a kernel that kept a sum
for each tap in registers was slower for most layers of EfficientNet-B0.

What a program computes is chosen here. More rows of a tile share the rows between them; more
columns in a tile share the columns at its edges; wide chunks of channels make long loads. Lanes
beyond the edge of a map do nothing. The numbers come from timing two or three choices for each
layer of EfficientNet-B0 at 224 pixels: they are good for those and a guess for others.
"""

from __future__ import annotations

import functools

import jax
from jax import lax

from cnnjax.ops import triton, xla
from cnnjax.ops.geometry import ConvGeometry

_ELEMENTS = 1024  # Of a tile: 8 values a thread in 4 warps, or 4 in 8.


def applies(g: ConvGeometry) -> bool:
    """Whether each channel has one kernel of a size that was measured, and loads are aligned.

    With multiples of 8 channels a thread's 4 or 8 neighbours of 2 bytes are one load.
    """
    # XLA does not divide a kernel of ours among devices: with several, the batch would be gathered.
    return (g.groups == g.in_channels == g.out_channels and g.in_channels % 8 == 0
            and set(g.window) <= {3, 5} and max(g.stride) <= 2 and len(jax.devices()) == 1
            and triton.runs_here())


def output(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (h, w, 1, C)."""
    channels = _chunk(g.in_channels, g.out[1], g.stride[1], g.window[1])
    rows = _rows(g.out[0], 7 if g.stride[0] == 1 else 4)
    return _compiled(_kernels().output, xla.conv2d, x, kernel, g, _tiles(g, channels, rows))


def input_gradient(dy: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of (B, H, W, C) from that of the output."""
    # Rows and columns of the tiles are blocks of pixels as large as the stride.
    rows, cols = (-(-size // step) for size, step in zip(g.size, g.stride, strict=True))
    channels = _chunk(g.in_channels, cols, 1, -(-g.window[1] // g.stride[1]))
    rows = _rows(rows, 7 if g.stride[0] == 1 else 2)
    return _compiled(_kernels().input_gradient, xla.input_gradient, dy, kernel, g,
                     _tiles(g, channels, rows))


def _compiled(ours, theirs, x, kernel, g, tiles):
    """Computes by the kernel what is compiled for a GPU, in a type for which it was measured."""
    if x.dtype.itemsize > 2:
        return theirs(x, kernel, g)
    return lax.platform_dependent(x, kernel, cuda=functools.partial(ours, g=g, tiles=tiles),
                                  default=functools.partial(theirs, g=g))


def _tiles(g, channels, rows):
    # At stride 1 half the values a thread was the faster in nearly all layers, at stride 2 the
    # slower over all of them.
    return _kernels().Tiles(channels, _ELEMENTS, rows, warps=8 if max(g.stride) == 1 else 4)


def _chunk(channels, cols, step, window):
    """How many channels a tile has: those that waste the fewest lanes and bytes, by a rough model.
    """
    def cost(chunk):
        spans = -(-cols * chunk // _ELEMENTS)
        abreast = min(cols, _ELEMENTS / chunk)
        idle = spans * _ELEMENTS / (cols * chunk)
        again = (step * abreast + max(0, window - step)) / (step * abreast)
        short = 1 if chunk == channels else 1 + 8 / chunk
        return idle * again * short

    # 16 channels of bfloat16 are a sector of 32 bytes: no two programs write parts of one.
    unit = 16 if channels % 16 == 0 else 8
    return min((c for c in range(unit, channels + 1, unit) if channels % c == 0), key=cost)


def _rows(rows, most):
    """The number of rows of a tile, up to `most`: many, and few beyond the edge."""
    return min(range(1, most + 1), key=lambda n: (-(-rows // n) * n / rows + 0.5 / n))


def _kernels():
    # Pallas takes a while to import, and only GPUs need it.
    from cnnjax.ops import depthwise_kernels
    return depthwise_kernels
