"""Each image's own operation, for a whole batch at once: the form for accelerators.

There every branch of a `lax.switch` is computed for every image, so the fewer and cheaper the
branches are, the better. Most kinds of operation only replace each level of a channel by another.
They are a table [C, 256] for each image, which costs nothing to make, and one lookup. AutoContrast
and Equalize need to know how often each level occurs: only the images that drew one of them are
counted. All the rest is one pass over packed pixels (`packed`).

Where there is Triton, `kernels` look at the pixels instead, and take no branch but the one drawn.
The other form was measured on a GPU, too, and on no TPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.data.augment import color, packed
from cnnjax.data.augment.geometry import interpolated, neighbours
from cnnjax.ops import triton

_COUNTED = ("AutoContrast", "Equalize")
_COUNTERS = 16  # Of each level. Neighbours that add to one place in memory wait for each other.


def apply_together(pixels: jax.Array, channels: int, names: Sequence[str], kinds: jax.Array,
                   sizes: jax.Array, matrices: jax.Array, fill: jax.Array, method: str
                   ) -> jax.Array:
    """Applies to each image one operation.

    Args:
      pixels: uint32 [B, H, W], packed.
      channels: C, 1 or 3.
      names: the kinds of operation: those of `color`, "Identity" and "warp".
      kinds: int32 [B], numbers of `names`.
      sizes: float32 [B], magnitudes.
      matrices: float32 [B, 2, 3], of `geometry.warp`.
      fill: uint8 [C], what comes from outside an image.
      method: of resampling.

    Returns:
      uint32 [B, H, W].
    """
    how = dict(channels=channels, names=names, method=method)
    return either(functools.partial(_apply_by_kernels, **how), functools.partial(_apply, **how),
                  pixels, kinds, sizes, matrices, fill)


def jitter_together(pixels: jax.Array, channels: int, factors: jax.Array, order: jax.Array,
                    wanted: Sequence[bool]) -> jax.Array:
    """Changes brightness, contrast, saturation and hue of each image in its own order.

    Args:
      pixels: uint32 [B, H, W], packed.
      channels: C, 1 or 3.
      factors: float32 [B, 4], the turn of the hue last.
      order: int [B, 4], each row a permutation of 0..3.
      wanted: which of the four.

    Returns:
      uint32 [B, H, W].
    """
    how = dict(channels=channels, wanted=tuple(wanted))
    return either(functools.partial(_jitter_by_kernels, **how), functools.partial(_jitter, **how),
                  pixels, factors, order)


def either(by_kernels: Callable[..., jax.Array], plainly: Callable[..., jax.Array],
           *arrays: jax.Array) -> jax.Array:
    """Returns what the first function returns where it is compiled for Triton, else the second."""
    if jax.default_backend() != "gpu" or not triton.runs_here():
        return plainly(*arrays)
    return lax.platform_dependent(*arrays, cuda=by_kernels, default=plainly)


def _kernels():
    # Pallas takes a while to import, and only GPUs need it.
    from cnnjax.data.augment import kernels
    return kernels


def _apply_by_kernels(pixels, kinds, sizes, matrices, fill, *, channels, names, method,
                      interpret=False):
    kernels = _kernels()
    count, grey = kernels.survey(pixels, channels, _is_one_of(_COUNTED, names, kinds),
                                 _is_one_of(("Contrast",), names, kinds), interpret)
    tables = _tables(names, kinds, sizes, count, grey)
    routes = [kernels.ROUTES.index(name) if name in kernels.ROUTES else 0 for name in names]
    if channels == 1:  # Its saturation stays.
        routes[names.index("Color")] = kernels.ROUTES.index("Identity")
    return kernels.apply(pixels, channels, jnp.array(routes, jnp.int32)[kinds], sizes, tables,
                         matrices, packed.pack(fill), method, interpret)


def _apply(pixels, kinds, sizes, matrices, fill, *, channels, names, method):
    is_one_of = functools.partial(_is_one_of, names=names, kinds=kinds)
    planes = packed.planes(pixels, channels)
    grey = color.grey(*planes)
    counted = is_one_of(_COUNTED)
    count = jnp.stack([_histogram(plane, counted) for plane in planes], axis=1)
    tables = _tables(names, kinds, sizes, count, grey.mean(axis=(1, 2)))
    out = packed.join([_look_up(tables[:, i], plane) for i, plane in enumerate(planes)])
    branches = {"warp": _warp(pixels, channels, matrices, fill, method),
                "Sharpness": [jax.vmap(color.adjust_sharpness)(plane[..., None], 1 + sizes)[..., 0]
                              for plane in planes]}
    if channels > 1:
        factors = 1 + sizes[:, None, None]
        branches["Color"] = [color.blend(plane, grey, factors) for plane in planes]
    for name, changed in branches.items():
        out = jnp.where(is_one_of((name,))[:, None, None], packed.join(changed), out)
    return out


def _is_one_of(wanted, names, kinds):
    return sum((kinds == names.index(name) for name in wanted), jnp.zeros(len(kinds), bool))


def _jitter_by_kernels(pixels, factors, order, *, channels, wanted, interpret=False):
    return _kernels().jitter(pixels, channels, factors, order, wanted, interpret)


def _jitter(pixels, factors, order, *, channels, wanted):
    factors = jnp.where(jnp.array(wanted), factors, 1.0)
    for which in order.T:
        factor = jnp.take_along_axis(factors, which[:, None], axis=1)[..., None]
        which = which[:, None, None]
        planes = packed.planes(pixels, channels)
        grey = color.grey(*planes)
        # All but the hue blend with something: with black, with the mean grey, with the grey.
        other = jnp.where(which == 1, grey.mean(axis=(1, 2), keepdims=True), 0.0)
        other = jnp.where(which == 2, grey, other)
        changed = packed.join([color.blend(plane, other, factor) for plane in planes])
        if channels == 1:  # It has no saturation and no hue.
            changed = jnp.where(which < 2, changed, pixels)
        else:
            turned = packed.join(color.turn_hue(*planes, factor)) if wanted[3] else pixels
            changed = jnp.where(which == 3, turned, changed)
        # Or the last change would be computed again for each channel where they are unpacked.
        pixels = jax.lax.optimization_barrier(changed)
    return pixels


def _tables(names, kinds, sizes, count, grey):
    return jax.vmap(_table, in_axes=(None, 0, 0, 0, 0))(names, kinds, sizes, count, grey)


def _table(names: Sequence[str], kind: jax.Array, size: jax.Array, count: jax.Array,
           grey: jax.Array) -> jax.Array:
    """Returns what an image's operation makes of each level, uint8 [C, 256].

    `count`, int32 [C, 256], is how often each occurs, and `grey` the mean of the grey image.
    """
    levels = jnp.broadcast_to(jnp.arange(256, dtype=jnp.uint8), count.shape)
    low = jnp.argmax(count > 0, axis=1)[:, None]
    high = 255 - jnp.argmax(count[:, ::-1] > 0, axis=1)[:, None]
    changed = {**{name: change(levels, size) for name, change in color.OF_A_LEVEL.items()},
               "Contrast": color.blend(levels, grey, 1 + size),
               "AutoContrast": color.stretch(levels, low, high),
               "Equalize": color.equalizing_table(count)}
    drawn = [kind == names.index(name) for name in changed]
    return jnp.select(drawn, list(changed.values()), levels)


def _look_up(tables: jax.Array, plane: jax.Array) -> jax.Array:
    """Returns uint8 [B, H, W], levels replaced by those of tables [B, 256]."""
    row = jnp.arange(len(plane))[:, None, None]
    return tables.reshape(-1).at[row * 256 + plane].get(mode="promise_in_bounds")


def _warp(pixels: jax.Array, channels: int, matrices: jax.Array, fill: jax.Array, method: str
          ) -> list[jax.Array]:
    """Resamples each image along its map: planes, uint8 [B, H, W] each."""
    def one(pixels, matrix):
        return neighbours(pixels.reshape(-1), pixels.shape, matrix, packed.pack(fill), method)

    found, shares = jax.vmap(one)(pixels, matrices)
    found = zip(*(packed.planes(corner, channels) for corner in found), strict=True)
    return [interpolated(corners, shares) for corners in found]


def _histogram(plane: jax.Array, wanted: jax.Array) -> jax.Array:
    """Returns how often each level occurs, int32 [B, 256]: of use only where it is wanted."""
    if jax.default_backend() == "tpu":
        # Matrices multiply faster there than a few places are added to: a level is a pair of
        # hexadecimal digits, and the pairs are counted by a product of their one-hot codes.
        flat = plane.reshape(len(plane), -1)
        high, low = (jax.nn.one_hot(digit, 16, dtype=jnp.bfloat16)
                     for digit in (flat >> 4, flat & 15))
        pairs = jnp.einsum("bpi,bpj->bij", high, low, preferred_element_type=jnp.float32)
        return pairs.reshape(-1, 256).astype(jnp.int32)
    rows, _, width = plane.shape
    counter = jnp.arange(rows)[:, None, None] * _COUNTERS + jnp.arange(width) % _COUNTERS
    size = rows * _COUNTERS * 256
    # What is out of bounds is dropped: adding to memory is what takes the time.
    where = jnp.where(wanted[:, None, None], counter * 256 + plane, size)
    count = jnp.zeros(size, jnp.int32).at[where].add(1, mode="drop")
    return count.reshape(rows, _COUNTERS, 256).sum(axis=1)
