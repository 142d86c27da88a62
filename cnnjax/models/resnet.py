"""Residual networks for ImageNet and for CIFAR, and what became of their blocks.

He, Zhang, Ren & Sun, arXiv 1512.03385. The bottleneck has its stride on the 3x3 convolution
("v1.5", as torchvision and the literature since 2017); the paper has it on the first 1x1. ResNeXt
(Xie et al., arXiv 1611.05431) gives that convolution groups, Wide ResNet (Zagoruyko & Komodakis,
arXiv 1605.07146) more channels, and SENet (Hu et al., arXiv 1709.01507) gates every branch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.models.layers import (
    FLOAT32,
    BatchNorm,
    Conv,
    Endpoints,
    GlobalAvgPool,
    MaxPool,
    ModuleDef,
    classify,
    endpoint_names,
    he_normal,
)
from cnnjax.models.parts import DropPath, SqueezeExcite
from cnnjax.types import UserError

Shortcut = Literal["projection", "pad", "none"]


class BasicBlock(nn.Module):
    """3x3, norm, ReLU, 3x3, norm, plus the shortcut, ReLU.

    Attributes:
      width: of a stage: the output channels here, a quarter of them in a bottleneck.
      stride: of the first 3x3 convolution.
      shortcut: what a block that changes the shape adds. "projection" is the paper's option B, a
        1x1 convolution and a batch norm, and "pad" its option A, every `stride`-th pixel and zeros
        for the new channels, half of them on either side. "none" never adds anything: a plain net.
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
        if x.shape != y.shape and self.shortcut == "projection":
            x = self.conv(y.shape[-1], 1, self.stride, name="shortcut_conv")(x)
            x = self.norm(name="shortcut_norm")(x)
        elif x.shape != y.shape:
            new = y.shape[-1] - x.shape[-1]
            edges = ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2))
            x = jnp.pad(x[:, ::self.stride, ::self.stride], edges)
        return nn.relu(y + x)


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


class ResNet(nn.Module):
    """A residual network: stem, stages of blocks, global average pooling, linear.

    Endpoints: stem (after its pooling), stage1, stage2, …, features.

    Attributes:
      num_classes: outputs; 0 gives the features.
      stage_sizes: blocks of each stage; every stage after the first halves the map.
      block: "basic" or "bottleneck".
      widths: of each stage, a quarter of a bottleneck's output channels; the stem has the first.
      stem: "imagenet", a 7x7 convolution of stride 2 and a 3x3 max-pooling of stride 2, or
        "cifar", a 3x3 convolution.
      shortcut: "projection", "pad" or "none", as in `BasicBlock`.
      groups, width_per_group, se_reduction: as in `Bottleneck` and `BasicBlock`.
      conv_init: He's normal initialisation (arXiv 1502.01852), by "fan_out" as in torchvision or
        "fan_in", that paper's forward case. The head has torch's default, as in torchvision.
      zero_init_residual: whether the last norm of each block starts at zero, so that the network
        starts as its shortcuts (Goyal et al., arXiv 1706.02677, section 5.1). False, as in
        torchvision, so that a default model is the one whose published accuracy it is held to.
      dropout_rate: before the head.
      drop_path_rate: of stochastic depth in the last block, falling linearly to 0 in the first.
      bn_momentum: decay of the running statistics; 0.9 is torch's momentum=0.1.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    block: Literal["basic", "bottleneck"]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: Literal["imagenet", "cifar"] = "imagenet"
    shortcut: Shortcut = "projection"
    groups: int = 1
    width_per_group: int = 64
    se_reduction: int | None = None
    conv_init: Literal["fan_in", "fan_out"] = "fan_out"
    zero_init_residual: bool = False
    dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    bn_momentum: float = 0.9
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        if len(self.stage_sizes) != len(self.widths) or not self.widths:
            raise UserError(f"ResNet: stage_sizes={self.stage_sizes} and widths={self.widths} must "
                            "have one entry for each stage.")
        if self.shortcut == "none" and (self.zero_init_residual or self.drop_path_rate):
            raise UserError("ResNet: zero_init_residual and drop_path_rate turn blocks into their "
                            "shortcuts, and shortcut='none' has none: all outputs and gradients "
                            "would be zero. Set them to False and 0.")
        if self.block == "basic" and (self.groups, self.width_per_group) != (1, 64):
            raise UserError("ResNet: groups and width_per_group are for block='bottleneck'.")
        least = min(self.widths) * self.width_per_group // 64
        if min(least, self.groups, self.se_reduction or 1) < 1:
            raise UserError("ResNet: groups, se_reduction and width_per_group * widths / 64 must "
                            "be at least 1.")
        super().__post_init__()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        stages = [f"stage{i}" for i in range(1, len(self.stage_sizes) + 1)]
        return endpoint_names(("stem", *stages), self.num_classes)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, 3) to logits (B, num_classes)."""
        end = Endpoints(self.endpoints, capture)
        conv = functools.partial(Conv, dtype=self.dtype, kernel_init=he_normal(self.conv_init))
        norm = functools.partial(BatchNorm, train=train, momentum=self.bn_momentum)
        last = nn.initializers.zeros if self.zero_init_residual else nn.initializers.ones
        gate = functools.partial(SqueezeExcite, dtype=self.dtype, kernel_init=he_normal("fan_out"))
        shared = dict(shortcut=self.shortcut, conv=conv, norm=norm, gate=gate,
                      se_reduction=self.se_reduction,
                      last_norm=functools.partial(norm, scale_init=last))
        block = BasicBlock if self.block == "basic" else functools.partial(
            Bottleneck, groups=self.groups, width_per_group=self.width_per_group)
        rates = iter(np.linspace(0, self.drop_path_rate, sum(self.stage_sizes)).tolist())

        kernel, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = conv(self.widths[0], kernel, stride, name="stem_conv")(x)
        x = nn.relu(norm(name="stem_norm")(x))
        if self.stem == "imagenet":
            x = MaxPool(3, 2, padding=1, name="stem_pool")(x)
        x = end("stem", x)

        for i, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), 1):
            for j in range(1, size + 1):
                x = block(width, 2 if i > 1 and j == 1 else 1, name=f"stage{i}_block{j}",
                          drop_path=functools.partial(DropPath, next(rates), train), **shared)(x)
            x = end(f"stage{i}", x)

        return classify(GlobalAvgPool(name="pool")(x), end, num_classes=self.num_classes,
                        dropout_rate=self.dropout_rate, train=train)
