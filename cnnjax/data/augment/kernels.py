"""Each image's own operation as GPU kernels, in which a branch that was not drawn costs nothing.

What `together` computes for all images and selects from is here a branch: a program has a piece of
one image, so all of its threads take the same one. Images are packed (`packed`), one pixel a
number, and a kernel reads and writes each pixel about once: at 256 images of 224 pixels that is
103 MB, 35 us of an H100's 12 ms for a training step of ResNet-18.

Written in Pallas for its Triton backend (docs.jax.dev/en/latest/pallas), whose arrays are powers of
two. Levels are float32, which holds them exactly, until they are packed again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from cnnjax.data.augment import color, packed

# What a program may do to its piece. Kinds of operation that are not named here are tables of
# levels, the first.
ROUTES = ("levels", "Identity", "warp", "Sharpness", "Color")
_PIXELS = 1024  # Of a piece: 8 a thread in 4 warps.
_COUNTED = 512  # At a time, in two matrices of 16 by so many.
_PARTS = 16  # Of an image, each counted by itself.


def apply(pixels: jax.Array, channels: int, routes: jax.Array, sizes: jax.Array, tables: jax.Array,
          matrices: jax.Array, fill: jax.Array, method: str, interpret: bool = False) -> jax.Array:
    """Applies to each image one operation.

    Args:
      pixels: uint32 [B, H, W], packed.
      channels: C, 1 or 3.
      routes: int32 [B], numbers of `ROUTES`.
      sizes: float32 [B], magnitudes.
      tables: uint8 [B, C, 256], what the first route makes of each level.
      matrices: float32 [B, 2, 3], of `geometry.warp`.
      fill: uint32, a packed pixel: what comes from outside an image.
      method: of resampling.
      interpret: whether to run without a GPU, for tests.

    Returns:
      uint32 [B, H, W].
    """
    batch, height, width = pixels.shape
    body = functools.partial(_apply, channels=channels, height=height, width=width, method=method)
    out = _call(body, (-(-height * width // _PIXELS), batch), interpret,
                jax.ShapeDtypeStruct((batch, height * width), jnp.uint32),
                pixels.reshape(batch, -1), routes, sizes, tables.reshape(batch, -1),
                matrices.reshape(batch, 6), fill.reshape(1))
    return out.reshape(pixels.shape)


def survey(pixels: jax.Array, channels: int, counted: jax.Array, averaged: jax.Array,
           interpret: bool = False) -> tuple[jax.Array, jax.Array]:
    """Counts the levels of some images and averages the grey of others.

    Args:
      pixels: uint32 [B, H, W], packed.
      channels: C, 1 or 3.
      counted: bool [B], whose levels to count.
      averaged: bool [B], whose grey to average.
      interpret: whether to run without a GPU, for tests.

    Returns:
      How often each level occurs, int32 [B, C, 256], and the mean grey, float32 [B]; 0 for images
      of which it was not asked.
    """
    batch, height, width = pixels.shape
    body = functools.partial(_survey, channels=channels, size=height * width)
    routes = jnp.where(counted, 1, jnp.where(averaged, 2, 0))
    count, grey = _call(body, (_PARTS, batch), interpret,
                        (jax.ShapeDtypeStruct((batch, _PARTS, channels, 16, 16), jnp.float32),
                         jax.ShapeDtypeStruct((batch, _PARTS), jnp.float32)),
                        pixels.reshape(batch, -1), routes)
    count = count.sum(axis=1).astype(jnp.int32).reshape(batch, channels, 256)
    return count, grey.sum(axis=1) / (height * width)


def jitter(pixels: jax.Array, channels: int, factors: jax.Array, order: jax.Array,
           wanted: Sequence[bool], interpret: bool = False) -> jax.Array:
    """Does what `together.jitter_together` does.

    One pass averages the grey that contrast needs, one changes the images; both begin with the
    changes that come before contrast.
    """
    batch, height, width = pixels.shape
    flat, pieces = pixels.reshape(batch, -1), -(-height * width // _PIXELS)
    changes = [i for i, on in enumerate(wanted) if on and (channels > 1 or i < 2)]
    # Of each step, which of these it makes, counted from 1, or none.
    steps = sum(((order == which) * (i + 1) for i, which in enumerate(changes)),
                jnp.zeros(order.shape, jnp.int32))
    factors = jnp.take_along_axis(factors, order, axis=1)
    how = dict(channels=channels, size=height * width, changes=changes)
    mean = jnp.zeros(batch, jnp.float32)
    if 1 in changes:
        before = jnp.where(jnp.cumsum(order == 1, axis=1) > 0, 0, steps)
        grey = _call(functools.partial(_grey_before_contrast, **how), (pieces, batch), interpret,
                     jax.ShapeDtypeStruct((batch, pieces), jnp.float32), flat, before, factors)
        mean = grey.sum(axis=1) / (height * width)
    out = _call(functools.partial(_jitter, **how), (pieces, batch), interpret,
                jax.ShapeDtypeStruct(flat.shape, jnp.uint32), flat, steps, factors, mean)
    return out.reshape(pixels.shape)


def _apply(pixels, routes, sizes, tables, matrices, fill, out, *, channels, height, width, method):
    inside, at, own = _own(pixels, channels, height * width)
    image = pl.program_id(1)
    row, col = lax.div(at, jnp.int32(width)), lax.rem(at, jnp.int32(width))

    def seen(row, col):
        there = (row >= 0) & (row < height) & (col >= 0) & (col < width)
        return plgpu.load(pixels.at[image, row * width + col], mask=there & inside,
                          other=fill[0])

    def levels():
        found = [plgpu.load(tables.at[image, 256 * c + level.astype(jnp.int32)])
                 for c, level in enumerate(own)]
        return packed.join([level.astype(jnp.float32) for level in found])

    def warp():
        a = [matrices[image, i] for i in range(6)]
        x = col.astype(jnp.float32) - (width - 1) / 2
        y = row.astype(jnp.float32) - (height - 1) / 2
        from_x = a[0] * x + a[1] * y + a[2] + (width - 1) / 2
        from_y = a[3] * x + a[4] * y + a[5] + (height - 1) / 2
        if method == "nearest":
            return seen(*(_rounded(v).astype(jnp.int32) for v in (from_y, from_x)))
        low_x, low_y = jnp.floor(from_x), jnp.floor(from_y)
        u, v = from_x - low_x, from_y - low_y
        low_x, low_y = low_x.astype(jnp.int32), low_y.astype(jnp.int32)
        corners = [_levels(seen(low_y + i, low_x + j), channels) for i in (0, 1) for j in (0, 1)]
        mixed = [(1 - v) * ((1 - u) * above_left + u * above_right)
                 + v * ((1 - u) * below_left + u * below_right)
                 for above_left, above_right, below_left, below_right in zip(*corners, strict=True)]
        return packed.join([_rounded(level) for level in mixed])

    def sharpness():
        if height <= 2 or width <= 2:
            return packed.join(own)
        around = [_levels(seen(row + i, col + j), channels)
                  for i in (-1, 0, 1) for j in (-1, 0, 1)]
        inner = (row > 0) & (row < height - 1) & (col > 0) & (col < width - 1)
        factor, changed = 1 + sizes[image], []
        for level, *seen_there in zip(own, *around, strict=True):
            smooth = _rounded((4 * level + sum(seen_there)) / 13)
            changed.append(_blend(level, jnp.where(inner, smooth, level), factor))
        return packed.join(changed)

    def saturation():
        grey = color.grey(*own)
        return packed.join([_blend(level, grey, 1 + sizes[image]) for level in own])

    changed = lax.switch(routes[image], [
        levels, lambda: packed.join(own), warp, sharpness, saturation])
    plgpu.store(out.at[image, at], changed, mask=inside)


def _survey(pixels, routes, count, grey, *, channels, size):
    part, image = pl.program_id(0), pl.program_id(1)
    steps = -(-size // (_COUNTED * _PARTS))
    digits = jnp.arange(16, dtype=jnp.int32)

    def piece(step):
        at = (part * steps + step) * _COUNTED + jnp.arange(_COUNTED, dtype=jnp.int32)
        inside = at < size
        return inside, plgpu.load(pixels.at[image, at], mask=inside, other=jnp.uint32(0))

    def add_counts(step, totals):
        # A level is a pair of hexadecimal digits: the pairs are counted by a product of their
        # one-hot codes, where adding to places in memory would wait for one another.
        inside, found = piece(step)
        sums = []
        for c, total in enumerate(totals):
            level = ((found >> 8 * c) & 255).astype(jnp.int32)
            high, low = jnp.where(inside, level >> 4, 16), level & 15
            high = (digits[:, None] == high[None, :]).astype(jnp.bfloat16)
            low = (low[:, None] == digits[None, :]).astype(jnp.bfloat16)
            sums.append(total + jnp.dot(high, low, preferred_element_type=jnp.float32))
        return tuple(sums)

    def add_grey(step, total):
        inside, found = piece(step)
        return total + jnp.where(inside, color.grey(*_levels(found, channels)), 0.0)

    nothing = (jnp.zeros((16, 16), jnp.float32),) * channels
    route = routes[image]
    for c, total in enumerate(lax.cond(
            route == 1, lambda: lax.fori_loop(0, steps, add_counts, nothing), lambda: nothing)):
        count[image, part, c] = total
    none = jnp.zeros(_COUNTED, jnp.float32)
    grey[image, part] = jnp.sum(lax.cond(
        route == 2, lambda: lax.fori_loop(0, steps, add_grey, none), lambda: none))


def _grey_before_contrast(pixels, steps, factors, out, *, channels, size, changes):
    inside, _, levels = _own(pixels, channels, size)
    piece, image = pl.program_id(0), pl.program_id(1)
    for i in range(3):  # If contrast is the last of four.
        levels = _change(levels, steps[image, i], factors[image, i], 0.0, changes)
    out[image, piece] = jnp.sum(jnp.where(inside, color.grey(*levels), 0.0))


def _jitter(pixels, steps, factors, mean, out, *, channels, size, changes):
    inside, at, levels = _own(pixels, channels, size)
    image = pl.program_id(1)
    for i in range(4):
        levels = _change(levels, steps[image, i], factors[image, i], mean[image], changes)
    plgpu.store(out.at[image, at], packed.join(levels), mask=inside)


def _change(levels, step, factor, mean, changes):
    """Brightness, contrast, saturation or hue: `changes` says which of them a step of 1, … is."""
    def towards(other):
        return lambda: [_blend(level, other(), factor) for level in levels]

    every = (towards(lambda: 0.0), towards(lambda: mean), towards(lambda: color.grey(*levels)),
             lambda: [level.astype(jnp.float32) for level in color.turn_hue(*levels, factor)])
    return lax.switch(step, [lambda: levels, *(every[which] for which in changes)])


def _own(pixels, channels, size):
    at = pl.program_id(0) * _PIXELS + jnp.arange(_PIXELS, dtype=jnp.int32)
    found = plgpu.load(pixels.at[pl.program_id(1), at], mask=at < size, other=jnp.uint32(0))
    return at < size, at, _levels(found, channels)


def _levels(pixels, channels):
    """The channels of packed pixels, float32 each."""
    return [((pixels >> 8 * c) & 255).astype(jnp.float32) for c in range(channels)]


def _blend(level, other, factor):
    return jnp.floor(jnp.clip(factor * level + (1 - factor) * other, 0, 255))


def _rounded(level):
    """The nearest whole number, of two the even one; Pallas lowers no rounding for Triton."""
    above = jnp.floor(level + 0.5)
    odd = above - 2 * jnp.floor(above / 2)
    return above - jnp.where(level + 0.5 == above, odd, 0.0)


def _call(body, grid, interpret, out, *operands):
    if 0 in grid:
        return jax.tree.map(lambda array: jnp.zeros(array.shape, array.dtype), out)
    whole = pl.BlockSpec(memory_space=pl.ANY)
    return pl.pallas_call(
        body, out, grid=grid, in_specs=[whole] * len(operands),
        out_specs=jax.tree.map(lambda _: whole, out),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret, name="augment" + body.func.__name__)(*operands)
