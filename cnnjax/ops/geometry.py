"""Where a window lands on a map: sizes, strides, padding, and the checks on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.types import UserError, did_you_mean

Pair = tuple[int, int]
Padding = str | int | Sequence[int] | Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A window that slides over a map. Every attribute is (height, width), in pixels.

    Attributes:
      size: the map, without padding.
      window: the kernel of a convolution or the window of a pool.
      stride: the step between two positions of the window.
      padding: ((top, bottom), (left, right)).
    """

    size: Pair
    window: Pair
    stride: Pair
    padding: tuple[Pair, Pair]

    @property
    def out(self) -> Pair:
        """The output's (height, width): floor((I - K + P) / S) + 1, P being both sides' padding."""
        rows, cols = ((size + sum(pads) - window) // stride + 1 for size, pads, window, stride
                      in zip(self.size, self.padding, self.window, self.stride, strict=True))
        return rows, cols

    @property
    def is_padded(self) -> bool:
        return self.padding != ((0, 0), (0, 0))


@dataclasses.dataclass(frozen=True)
class ConvGeometry(Geometry):
    """The geometry of a convolution.

    Attributes:
      in_channels: channels of the map.
      out_channels: channels of the result.
      groups: input and output channels fall into this many groups that don't see each other.
    """

    in_channels: int
    out_channels: int
    groups: int

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """(h, w, C / groups, D)."""
        return *self.window, self.in_channels // self.groups, self.out_channels


def pair(value: int | Sequence[int], what: str) -> Pair:
    """Returns (height, width) of a number that may stand for both.

    Raises:
      UserError: if `value` is neither a positive integer nor two of them; `what` names it.
    """
    both = tuple(value) if isinstance(value, Iterable) else (value, value)
    if len(both) != 2 or any(not isinstance(v, Integral) or v < 1 for v in both):
        raise UserError(f"{what} must be a positive integer or two of them, got {value!r}.")
    return int(both[0]), int(both[1])


def pads(padding: Padding, size: Pair, window: Pair, stride: Pair) -> tuple[Pair, Pair]:
    """Returns ((top, bottom), (left, right)) of any of the ways to write a padding.

    Args:
      padding: "VALID"; "SAME" as TensorFlow has it (ceil(I / S) outputs, the odd pixel at the
        bottom and right); one integer for all four sides; (height, width); or the four sides.
      size: the map's (height, width).
      window: the window's.
      stride: the stride's.

    Raises:
      UserError: if `padding` is none of these, or negative.
    """
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            raise UserError(f"padding={padding!r} is not known; it is 'SAME', 'VALID', a number or "
                            f"((top, bottom), (left, right)).{did_you_mean(padding, ['SAME'])}")
        rows, cols = lax.padtype_to_pads(size, window, stride, padding.upper())
        return tuple(map(int, rows)), tuple(map(int, cols))
    sides = tuple(padding) if isinstance(padding, Iterable) else (padding, padding)
    sides = tuple(tuple(side) if isinstance(side, Iterable) else (side, side) for side in sides)
    if len(sides) != 2 or any(
            len(side) != 2 or not all(isinstance(v, Integral) and v >= 0 for v in side)
            for side in sides):
        raise UserError(f"padding={padding!r} is not known; it is 'SAME', 'VALID', a number from 0 "
                        "or ((top, bottom), (left, right)).")
    return tuple(tuple(map(int, side)) for side in sides)


def geometry(op: str, noun: str, x: jax.Array, window, stride, padding) -> Geometry:
    """Returns the checked geometry of an operation on `x`.

    Args:
      op: the operation's name, for messages.
      noun: what the operation calls its window, for messages.
      x: (batch, height, width, channels), floating point.
      window, stride, padding: as the operation's own arguments.

    Raises:
      UserError: if `x` is no floating-point NHWC array, or the result would be empty.
    """
    if x.ndim != 4:
        raise UserError(f"{op} takes (batch, height, width, channels), got shape {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise UserError(f"{op} takes a floating-point array, got {x.dtype}: normalise the images, "
                        "or convert them with x.astype(jnp.float32).")
    window, stride = pair(window, f"{op}: {noun}"), pair(stride, f"{op}: stride")
    size = x.shape[1:3]
    found = Geometry(size, window, stride, pads(padding, size, window, stride))
    if min(found.out) < 1:
        raise UserError(f"{op}: a {window[0]}x{window[1]} {noun} does not fit a "
                        f"{size[0]}x{size[1]} map (padding {found.padding}): the input image is "
                        "too small.")
    return found


def useful_taps(g: ConvGeometry) -> tuple[slice, slice, ConvGeometry]:
    """Returns the rows and columns of the kernel that see any pixel, and the geometry of those.

    On a map smaller than the kernel the outer taps see padding alone, wherever the window is: of a
    5x5 kernel on a padded 2x2 map only 3x3 are of use.
    """
    kept, padding = [], []
    for size, pads, window, stride, out in zip(g.size, g.padding, g.window, g.stride, g.out,
                                               strict=True):
        # The last window starts at (out - 1) * stride, the first pixel lies at pads[0].
        first = min(max(0, pads[0] - (out - 1) * stride), window - 1)
        last = max(first + 1, min(window, pads[0] + size))
        kept.append(slice(first, last))
        padding.append((pads[0] - first, pads[1] - (window - last)))
    cropped = tuple(s.stop - s.start for s in kept)
    return *kept, dataclasses.replace(g, window=cropped, padding=tuple(padding))


def windows(x: jax.Array, g: Geometry, fill: float = 0.0) -> list[jax.Array]:
    """Returns, for each tap of the window in row-major order, the pixels it sees.

    Args:
      x: (batch, height, width, channels).
      g: the geometry.
      fill: the value of padding.

    Returns:
      window[0] * window[1] arrays of (batch, out[0], out[1], channels).
    """
    if g.is_padded:
        edges = ((0, 0, 0), (*g.padding[0], 0), (*g.padding[1], 0), (0, 0, 0))
        x = lax.pad(x, jnp.asarray(fill, x.dtype), edges)
    (rows, cols), (step_h, step_w) = g.out, g.stride
    return [lax.slice(x, (0, i, j, 0),
                      (x.shape[0], i + step_h * (rows - 1) + 1, j + step_w * (cols - 1) + 1,
                       x.shape[3]), (1, step_h, step_w, 1))
            for i in range(g.window[0]) for j in range(g.window[1])]


def overlap_add(maps: Sequence[jax.Array], fills: Sequence[float], g: Geometry,
                term: Callable[..., jax.Array]) -> jax.Array:
    """Returns the map to which every window adds a term at each of its taps: `windows` transposed.

        dx[q] = sum over the pairs (p, t) with p s + t = q of term(t, maps[p])

    with q counted from the padding's corner. Pixels of one phase q mod s meet the same taps, so
    each phase is a sum of shifted copies, and the phases are interleaved at the end. No pixel is
    looked up, and nothing is multiplied by the zeros that a dilation by s would put in.

    Args:
      maps: one or several (batch, out[0], out[1], channels).
      fills: for each, the value beyond its edges, for which `term` must be 0.
      g: the geometry.
      term: (tap in row-major order, *shifted maps) -> what they add, of the maps' shape.

    Returns:
      (batch, size[0], size[1], channels).
    """
    (step_h, step_w), (kernel_h, kernel_w) = g.stride, g.window
    maps, count, reach = phase_maps(maps, fills, g)
    batch, channels = maps[0].shape[0], maps[0].shape[3]

    def phase(row, col):
        terms = []
        for i in range(row, kernel_h, step_h):
            for j in range(col, kernel_w, step_w):
                top, left = reach[0] - i // step_h, reach[1] - j // step_w
                at = (slice(None), slice(top, top + count[0]), slice(left, left + count[1]))
                terms.append(term(i * kernel_w + j, *(m[at] for m in maps)))
        # A stride beyond the kernel leaves phases that no window sees.
        return sum(terms[1:], terms[0]) if terms else jnp.zeros(
            (batch, *count, channels), maps[0].dtype)

    if g.stride == (1, 1):
        dx = phase(0, 0)
    else:
        rows = [jnp.stack([phase(row, col) for col in range(step_w)], 3) for row in range(step_h)]
        dx = jnp.stack(rows, 2).reshape(batch, count[0] * step_h, count[1] * step_w, channels)
    return without_padding(dx, g)


def phase_maps(maps: Sequence[jax.Array], fills: Sequence[float], g: Geometry
               ) -> tuple[list[jax.Array], list[int], list[int]]:
    """Returns maps of windows, widened so that each pixel of a phase finds all that reach it.

    Along each axis `count` is how many pixels a phase q mod s has, top and left padding included,
    and `reach` how many positions before the first pixel's own can still reach it: the map of the
    windows k positions before begins at reach - k and is `count` long.

    Args:
      maps: (batch, out[0], out[1], channels).
      fills: for each, the value beyond its edges.
      g: the geometry.

    Returns:
      The maps, count and reach.
    """
    count = [-(-(size + pads[0]) // step)
             for size, pads, step in zip(g.size, g.padding, g.stride, strict=True)]
    reach = [(window - 1) // step for window, step in zip(g.window, g.stride, strict=True)]
    edges = ((0, 0, 0), *((r, c - out, 0) for r, c, out in zip(reach, count, g.out, strict=True)),
             (0, 0, 0))
    return [lax.pad(m, jnp.asarray(fill, m.dtype), edges)
            for m, fill in zip(maps, fills, strict=True)], count, reach


def without_padding(x: jax.Array, g: Geometry) -> jax.Array:
    """Returns the pixels of the map, of one that begins at the padding's corner."""
    (top, _), (left, _) = g.padding
    return x[:, top:top + g.size[0], left:left + g.size[1]]
