"""What the entries of an array see of an image, and how each operation of JAX changes it.

Along one axis of the image, position i of a map sees the pixels from start + i * stride to
start + i * stride + size - 1. A window of k, stride s and padding p makes of that

    size + (k - 1) * stride,    stride * s,    start - p * stride

(Araujo, Norris & Sim, "Computing receptive fields of convolutional neural networks", Distill
2019, eqs. 2 to 6). Here the rule is applied to the operations of a traced program (a jaxpr), so
that it holds for whatever a model does: branches, skips, padding and strides of slices included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

# One part of an array's axis: (which axis of the image it runs along, 0 for height and 1 for
# width, or None; how many entries). An axis has several after a reshape, in row-major order.
Factor = tuple[int | None, int]
Axis = tuple[Factor, ...]


@dataclasses.dataclass(frozen=True)
class Span:
    """What the positions of a map see along one axis of the image, in pixels.

    Attributes:
      size: how many pixels one position sees, from the first to the last.
      stride: from one position to the next.
      start: the first pixel that position 0 sees; below 0 in the padding.
    """

    size: int
    stride: int
    start: int

    def window(self, size: int, stride: int = 1, pad: int = 0) -> Span:
        """Returns what a sliding window over the map sees; `pad` is at the map's beginning."""
        return Span(self.size + (size - 1) * self.stride, self.stride * stride,
                    self.start - pad * self.stride)

    def union(self, other: Span) -> Span:
        """Returns the smallest span around two, of maps that are joined."""
        if self.stride != other.stride:
            raise Unknown(f"joins maps of strides {self.stride} and {other.stride} pixels")
        start = min(self.start, other.start)
        stop = max(self.start + self.size, other.start + other.size)
        return Span(stop - start, self.stride, start)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What an array sees of the image.

    Attributes:
      axes: of the array.
      spans: along the height and the width of the image. Where no axis of the array runs along
        the image's any more, as after a global pooling, the span is that of the map before.
      depth: how many layers with weights the longest path from the image has, gates left out.
    """

    axes: tuple[Axis, ...]
    spans: tuple[Span, Span]
    depth: int = 0

    @property
    def live(self) -> tuple[int, ...]:
        """The axes of the image, 0 and 1, along which the array has positions."""
        return tuple(sorted(label for axis in self.axes for label, _ in axis if label is not None))

    def label(self, axis: int) -> int | None:
        """The axis of the image that an axis of the array runs along, None if it is of neither."""
        labels = [label for label, _ in self.axes[axis] if label is not None]
        if labels and len(self.axes[axis]) > 1:
            raise Unknown("works on height or width flattened together with another axis")
        return labels[0] if labels else None

    def with_axes(self, axes: Sequence[Axis]) -> Seen:
        """Returns the same as an array of other axes."""
        return dataclasses.replace(self, axes=tuple(axes))

    def with_span(self, label: int, span: Span) -> Seen:
        """Returns the same with another span along one axis of the image."""
        spans = list(self.spans)
        spans[label] = span
        return dataclasses.replace(self, spans=tuple(spans))


class Unknown(Exception):
    """An operation whose effect on what is seen is not known; the message says what it does."""


def image(shape: Sequence[int]) -> Seen:
    """Returns what images of (N, H, W, C) see of themselves."""
    batch, height, width, channels = shape
    axes = (plain(batch), ((0, height),), ((1, width),), plain(channels))
    return Seen(axes, (Span(1, 1, 0),) * 2)


def plain(size: int) -> Axis:
    """Returns an axis of the array that is none of the image's."""
    return () if size == 1 else ((None, size),)


def join(seen: Sequence[Seen], axes: Sequence[Axis]) -> Seen:
    """Returns what an array of `axes` sees that is computed from all of `seen`.

    Along an axis of the image that the result has, it is the union of what the arrays with
    positions along that axis see: those without are gates and statistics, which see the whole map
    and are not followed.
    """
    live = Seen(tuple(axes), seen[0].spans).live
    if len(set(live)) < len(live):
        raise Unknown("pairs positions of a map with one another")
    spans = []
    for label in (0, 1):
        with_positions = [s.spans[label] for s in seen if label in s.live]
        if label in live:
            span = with_positions[0]
            for other in with_positions[1:]:
                span = span.union(other)
        else:
            span = max((s.spans[label] for s in seen), key=lambda span: span.size)
        spans.append(span)
    depth = max(s.depth for s in [s for s in seen if s.live] or seen)
    return Seen(tuple(axes), tuple(spans), depth)


def elementwise(seen: Sequence[Seen], shape: Sequence[int]) -> Seen:
    """Returns what an array of `shape` sees whose entries are computed from the same of others."""
    axes = []
    for i, size in enumerate(shape):
        with_labels = {s.axes[i] for s in seen if len(s.axes) == len(shape)
                       and any(label is not None for label, _ in s.axes[i])}
        if len(with_labels) > 1 or any(count(axis) != size for axis in with_labels):
            raise Unknown("joins maps of different sizes or layouts")
        axes.append(with_labels.pop() if with_labels else plain(size))
    return join(seen, axes)


def count(axis: Axis) -> int:
    """Returns the number of entries along an axis."""
    total = 1
    for _, n in axis:
        total *= n
    return total


def reshape(seen: Seen, shape: Sequence[int]) -> Seen:
    """Returns what the same entries see as an array of another shape.

    Where height or width is split, as space-to-depth does it, the inner part is one more axis of
    channels, and a position of the outer part sees what its inner positions see together.
    """
    if tuple(shape) == tuple(map(count, seen.axes)):
        return seen
    left = _merged([factor for axis in seen.axes for factor in axis])
    axes: list[Axis] = []
    for size in shape:
        axis: list[Factor] = []
        if size == 1 and left and left[0][1] == 1:
            axis.append(left.pop(0))
        while count(axis) < size:
            label, n = left.pop(0)
            wanted = size // count(axis)
            if n > wanted:
                if n % wanted or size % count(axis):
                    raise Unknown("splits height or width unevenly")
                inner = n // wanted
                if label is not None:
                    seen = seen.with_span(label, seen.spans[label].window(inner, inner))
                left.insert(0, (None, inner))
                n = wanted
            axis.append((label, n))
        if count(axis) != size:
            raise Unknown("splits height or width unevenly")
        axes.append(tuple(axis))
    if left and axes:  # Heights and widths of one pixel.
        axes[-1] += tuple(left)
    return seen.with_axes(axes)


def _merged(factors: Sequence[Factor]) -> list[Factor]:
    """Returns the factors with neighbours that are none of the image's as one."""
    merged: list[Factor] = []
    for label, n in factors:
        if label is None and merged and merged[-1][0] is None:
            merged[-1] = (None, merged[-1][1] * n)
        else:
            merged.append((label, n))
    return merged
