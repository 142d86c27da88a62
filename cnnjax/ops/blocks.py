"""A grouped convolution as a few dense ones.

Neighbouring groups are merged into blocks: m groups of c inputs and d outputs are one dense
convolution of m c to m d channels, whose kernel holds the groups' kernels on its diagonal and zeros
elsewhere. That multiplies m times as often as needed. But XLA:CPU runs a grouped convolution of 4
channels a group at a few GFLOP/s and its weight gradient two orders of magnitude slower than that,
and a dense one of 32 channels at over 100.

The zeros meet the other groups' values, so one that is not finite spoils its block, not its group.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from cnnjax.ops import xla
from cnnjax.ops.geometry import ConvGeometry

# Channels of a block, input or output: enough to fill vectors, and more rather than more blocks
# than this, each of which is compiled by itself.
CHANNELS, MAX_BLOCKS = 32, 16


def applies(g: ConvGeometry) -> bool:
    """Whether there are groups."""
    return g.groups > 1


def conv2d(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (h, w, C / groups, D), in the dtype of both."""
    inputs, outputs = g.in_channels // g.groups, g.out_channels // g.groups
    widest = max(CHANNELS, g.in_channels // MAX_BLOCKS, g.out_channels // MAX_BLOCKS)
    merged = max(m for m in range(1, g.groups + 1)
                 if g.groups % m == 0 and (m == 1 or m * max(inputs, outputs) <= widest))
    blocks = g.groups // merged
    kernel = kernel.reshape(*g.window, inputs, blocks, merged, outputs)
    # (…, blocks, group of the input, inputs, group of the output, outputs), 0 where they differ.
    diagonal = jnp.einsum("hwibmo,nm->hwbnimo", kernel, jnp.eye(merged, dtype=kernel.dtype))
    diagonal = diagonal.reshape(*g.window, blocks, merged * inputs, merged * outputs)
    dense = dataclasses.replace(g, in_channels=merged * inputs, out_channels=merged * outputs,
                                groups=1)
    parts = jnp.split(x, blocks, -1)
    return jnp.concatenate([xla.conv2d(part, diagonal[:, :, i], dense)
                            for i, part in enumerate(parts)], -1)
