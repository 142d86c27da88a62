"""A depthwise convolution and its input gradient as GPU kernels that read and write maps once.

With t = (i, j) a tap, s the stride and p the padding, for every channel by itself:

    y[b, q]  = sum_t x[b, s q + t - p] w[t]
    dx[b, r] = sum of dy[b, q] w[t] over the pairs (q, t) with s q + t - p = r

A program has a tile of `Tiles.elements` neighbouring (column, channel) pairs, the channels of one
chunk innermost, and takes `Tiles.rows` rows of it. A shift by one column is then a shift by C
elements of a row of W C: loads stay contiguous and aligned, and edges are a mask. For each column
of the kernel a row is loaded once and used for all taps of that column, from registers; the other
columns of the kernel find the same bytes in the L1 cache. Sums are float32.

The input gradient writes the s^2 phases of a block of pixels together: r = s m + f meets the taps
with (f + p - t) divisible by s, at q = m + (f + p - t) / s, so nothing is padded or dilated.

Written in Pallas for its Triton backend (docs.jax.dev/en/latest/pallas). Blocks of Triton are
powers of two; numbers of channels are not.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from cnnjax.ops.geometry import ConvGeometry
from cnnjax.ops.precision import sum_dtype, widened


class Tiles(NamedTuple):
    """What one program computes.

    Attributes:
      channels: of a chunk; divides C. In multiples of 8, no load is split.
      elements: (column, channel) pairs at a time, a power of two.
      rows: of the output (of blocks of pixels, in the input gradient) at a time.
      warps: of 32 threads.
    """

    channels: int
    elements: int
    rows: int
    warps: int


# Layers of one geometry share the tracing of a kernel, which takes up to half a second.
@functools.partial(jax.jit, static_argnames=("g", "tiles", "interpret"))
def output(x: jax.Array, kernel: jax.Array, g: ConvGeometry, tiles: Tiles,
           interpret: bool = False) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (h, w, 1, C); interpreted, on any backend."""
    batch, channels, (rows, cols) = x.shape[0], g.in_channels, g.out
    y = _call(functools.partial(_output, g=g, tiles=tiles), _grid(batch, rows, cols, g, tiles),
              tiles, interpret, jax.ShapeDtypeStruct((batch, rows, cols * channels), x.dtype),
              _flat(x), kernel.reshape(-1, channels))
    return y.reshape(batch, rows, cols, channels)


@functools.partial(jax.jit, static_argnames=("g", "tiles", "interpret"))
def input_gradient(dy: jax.Array, kernel: jax.Array, g: ConvGeometry, tiles: Tiles,
                   interpret: bool = False) -> jax.Array:
    """Returns the gradient of (B, H, W, C) from that of the output."""
    batch, channels, (rows, cols) = dy.shape[0], g.in_channels, g.size
    blocks = [-(-size // step) for size, step in zip(g.size, g.stride, strict=True)]
    dx = _call(functools.partial(_input_gradient, g=g, tiles=tiles),
               _grid(batch, *blocks, g, tiles), tiles, interpret,
               jax.ShapeDtypeStruct((batch, rows, cols * channels), dy.dtype),
               _flat(dy), kernel.reshape(-1, channels))
    return dx.reshape(batch, rows, cols, channels)


def _output(x, w, y, *, g, tiles):
    (top, _), (left, _) = g.padding
    (step_h, step_w), (kernel_h, kernel_w) = g.stride, g.window
    channel, col = _tile(pl.program_id(0), g, tiles)
    row, image = pl.program_id(1) * tiles.rows, pl.program_id(2)
    sums = [0.0] * tiles.rows
    for j in range(kernel_w):
        seen = step_w * col + (j - left)
        lines = _lines(x, image, step_h * row - top,
                       {step_h * a + i for a in range(tiles.rows) for i in range(kernel_h)},
                       g.size[0], seen * g.in_channels + channel, _inside(seen, g.size[1]))
        for i in range(kernel_h):
            tap = widened(w[i * kernel_w + j, channel])
            sums = [total + lines[step_h * a + i] * tap for a, total in enumerate(sums)]
    for a, total in enumerate(sums):
        _store(y, image, row + a, g.out[0], col * g.in_channels + channel, col < g.out[1], total)


def _input_gradient(dy, w, dx, *, g, tiles):
    (top, _), (left, _) = g.padding
    (step_h, step_w), kernel_w = g.stride, g.window[1]
    channel, col = _tile(pl.program_id(0), g, tiles)
    row, image = pl.program_id(1) * tiles.rows, pl.program_id(2)
    # Of each tap, which phase of a block it reaches, and from how many positions further on.
    rows = [((i - top) % step_h, -((i - top) // step_h)) for i in range(g.window[0])]
    cols = [((j - left) % step_w, -((j - left) // step_w)) for j in range(kernel_w)]
    sums = {(a, p, q): jnp.zeros(tiles.elements, sum_dtype(dy.dtype))
            for a in range(tiles.rows) for p in range(step_h) for q in range(step_w)}
    for shift in sorted({shift for _, shift in cols}):
        seen = col + shift
        lines = _lines(dy, image, row, {a + up for a in range(tiles.rows) for _, up in rows},
                       g.out[0], seen * g.in_channels + channel, _inside(seen, g.out[1]))
        for j, (q, _) in enumerate(cols):
            if cols[j][1] != shift:
                continue
            for i, (p, up) in enumerate(rows):
                tap = widened(w[i * kernel_w + j, channel])
                for a in range(tiles.rows):
                    sums[a, p, q] += lines[a + up] * tap
    for (a, p, q), total in sums.items():
        at = step_w * col + q
        _store(dx, image, step_h * (row + a) + p, g.size[0], at * g.in_channels + channel,
               at < g.size[1], total)


def _grid(batch, rows, cols, g, tiles):
    """Chunks of one tile first: programs that run together then read whole rows together."""
    spans = -(-cols * tiles.channels // tiles.elements)
    return g.in_channels // tiles.channels * spans, -(-rows // tiles.rows), batch


def _tile(program, g, tiles):
    """The channel and the column of each element of a tile."""
    chunks = jnp.int32(g.in_channels // tiles.channels)
    span, chunk = lax.div(program, chunks), lax.rem(program, chunks)
    element = span * tiles.elements + jnp.arange(tiles.elements, dtype=jnp.int32)
    col = lax.div(element, jnp.int32(tiles.channels))
    return element - col * tiles.channels + chunk * tiles.channels, col


def _lines(ref, image, row, offsets, height, at, seen):
    """{offset: the elements `at` of that row, in float32}, 0 where they are outside."""
    return {r: widened(plgpu.load(ref.at[image, row + r, at],
                                mask=seen & _inside(row + r, height), other=0.0))
            for r in sorted(offsets)}


def _store(ref, image, row, height, at, seen, value):
    plgpu.store(ref.at[image, row, at], value.astype(ref.dtype), mask=seen & (row < height))


def _inside(at, size):
    # Not `at <= size - 1`: where size is a multiple of a load's width, Triton sees that `at < size`
    # holds for all values of a load or for none, and need not split it.
    return (at >= 0) & (at < size)


def _flat(x):
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


def _call(body, grid, tiles, interpret, out, *operands):
    if 0 in grid:
        return jnp.zeros(out.shape, out.dtype)
    whole = pl.BlockSpec(memory_space=pl.ANY)
    return pl.pallas_call(
        body, out, grid=grid, in_specs=[whole] * len(operands), out_specs=whole,
        compiler_params=plgpu.CompilerParams(num_warps=tiles.warps, num_stages=1),
        interpret=interpret, name="depthwise" + body.func.__name__)(*operands)
