"""Sums over all but the channels, of several maps that come from the same ones, in one reading.

    s_j[c] = sum over b, h, w of m_j[b, h, w, c]

A reduction with several operands computes all m_j where it reads what they come from, and adds
vectors of channels. XLA:CPU's sums of one operand take maps that are written out: mean(x - k) and
mean((x - k)^2) cost a pass that writes and two that read.

Eight or sixteen rows become one, until there is one: LLVM unrolls a loop of so many rounds, and
only then makes vectors of the channels. A loop over 56 rows would add one number at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def channel_sums(maps: Sequence[jax.Array], rows: int) -> list[jax.Array]:
    """Returns the sum of each map over all but the channels, (C,).

    Args:
      maps: (B, H, W, C), of one shape and dtype.
      rows: at most so many are added in a loop. The more maps there are, the fewer: each needs a
        register.
    """
    batch, height, width, channels = maps[0].shape
    if height == 1 or jax.default_backend() != "cpu":
        return [m.sum((0, 1, 2)) for m in maps]
    rows = next((n for n in range(rows, rows // 2, -1) if height % n == 0), min(rows, height))
    whole = height // rows
    # The rows of a loop lie far apart, so that each comes to the processor as a stream.
    shape = (batch, rows, whole, width, channels)
    sums = channel_sums(_over_axis_1([m[:, :rows * whole].reshape(shape) for m in maps]), rows)
    if rows * whole == height:
        return sums
    rest = channel_sums([m[:, rows * whole:] for m in maps], rows)
    return [a + b for a, b in zip(sums, rest, strict=True)]


def _over_axis_1(maps):
    zeros = (jnp.zeros((), maps[0].dtype),) * len(maps)
    return lax.reduce(tuple(maps), zeros,
                      lambda a, b: tuple(u + v for u, v in zip(a, b, strict=True)), (1,))
