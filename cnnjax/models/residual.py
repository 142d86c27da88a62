"""The blocks of residual networks, as they were published and what became of them.

He, Zhang, Ren & Sun, arXiv 1512.03385. The bottleneck has its stride on the 3x3 convolution
("v1.5", as torchvision and the literature since 2017); the paper has it on the first 1x1. ResNeXt
(Xie et al., arXiv 1611.05431) gives that convolution groups, Wide ResNet (Zagoruyko & Komodakis,
arXiv 1605.07146) more channels, and SENet (Hu et al., arXiv 1709.01507) gates every branch.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import ops
from cnnjax.models.layers import ModuleDef

Shortcut = Literal["projection", "pad", "none"]


class BasicBlock(nn.Module):
    """3x3, norm, ReLU, 3x3, norm, plus the shortcut, ReLU.

    Attributes:
      width: of a stage: the output channels here, a quarter of them in a bottleneck.
      stride: of the first 3x3 convolution.
      shortcut: what a block with a stride or other channels adds. "projection" is the paper's
        option B, a 1x1 convolution and a batch norm, and "pad" its option A, every `stride`-th
        pixel and zeros for the new channels, half of them on either side. "none" never adds
        anything: a plain net.
      conv, norm, last_norm, gate, drop_path: makers of the layers, with dtype and train mode bound.
      se_reduction: ratio of a branch's channels to the units of its gate, a multiple of 8, or None.
    """

    width: int
    stride: int
    shortcut: Shortcut
    conv: ModuleDef
    norm: ModuleDef
    last_norm: ModuleDef
    gate: ModuleDef
    drop_path: ModuleDef
    se_reduction: int | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.width, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(self.width, 3, name="conv2")(y)
        return self.end(x, self.last_norm(name="norm2")(y))

    def end(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Gates and drops the branch y, adds the shortcut of x, rectifies."""
        if self.se_reduction:
            width = max(8, int(y.shape[-1] / self.se_reduction + 4) // 8 * 8)
            y = self.gate(width, name="se")(y)
        y = self.drop_path(name="drop_path")(y)
        if self.shortcut == "none":
            return nn.relu(y)
        # Not whether the shapes differ, or the parameters would be others for the smallest images,
        # whose maps of one pixel keep their shape at any stride.
        changes = self.stride != 1 or x.shape[-1] != y.shape[-1]
        if changes and self.shortcut == "projection":
            x = self.conv(y.shape[-1], 1, self.stride, name="shortcut_conv")(x)
            x = self.norm(name="shortcut_norm")(x)
        elif changes:
            new = y.shape[-1] - x.shape[-1]
            edges = ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2))
            x = jnp.pad(x[:, ::self.stride, ::self.stride], edges)
        return ops.relu(y + x)


class Bottleneck(BasicBlock):
    """1x1, norm, ReLU, 3x3, norm, ReLU, 1x1 to four times the width, norm, plus shortcut, ReLU.

    Attributes: as `BasicBlock`, and `groups` of the 3x3 convolution and the channels of each, per
    64 of `width`.
    """

    groups: int = 1
    width_per_group: int = 64

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.width * self.width_per_group // 64 * self.groups
        y = self.conv(inner, 1, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(inner, 3, self.stride, groups=self.groups, name="conv2")(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.conv(4 * self.width, 1, name="conv3")(y)
        return self.end(x, self.last_norm(name="norm3")(y))
