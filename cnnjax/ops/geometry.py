"""Where a window lands on a map: sizes, strides, padding, and the checks on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

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


def pair(value: int | Sequence[int], what: str) -> Pair:
    """Returns (height, width) of a number that may stand for both.

    Raises:
      UserError: if `value` is neither a positive integer nor two of them; `what` names it.
    """
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or any(not isinstance(v, int) or v < 1 for v in both):
        raise UserError(f"{what} must be a positive integer or two of them, got {value!r}.")
    return both


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
    sides = (padding, padding) if isinstance(padding, int) else tuple(padding)
    sides = tuple((side, side) if isinstance(side, int) else tuple(side) for side in sides)
    if len(sides) != 2 or any(len(side) != 2 or min(side) < 0 for side in sides):
        raise UserError(f"padding={padding!r} is not known; it is 'SAME', 'VALID', a number from 0 "
                        "or ((top, bottom), (left, right)).")
    return sides


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
