"""Residual networks for ImageNet and for CIFAR (He, Zhang, Ren & Sun, arXiv 1512.03385).

What became of their blocks, in ResNeXt, Wide ResNet and SENet, is in `residual`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.initializers import he_normal
from cnnjax.models.layers import (
    FLOAT32,
    BatchNorm,
    Conv,
    Endpoints,
    GlobalAvgPool,
    MaxPool,
    classify,
    endpoint_names,
)
from cnnjax.models.parts import DropPath, SqueezeExcite, check_stages, stage_names
from cnnjax.models.residual import BasicBlock, Bottleneck, Shortcut
from cnnjax.models.scaling import check_multipliers, round_channels, round_repeats
from cnnjax.types import UserError


class ResNet(nn.Module):
    """A residual network: stem, stages of blocks, global average pooling, linear.

    Endpoints: stem (after its pooling), stage1, stage2, …, features.

    Attributes:
      num_classes: outputs; 0 gives the features.
      stage_sizes: blocks of each stage; every stage after the first halves the map.
      block: "basic" or "bottleneck".
      widths: of each stage, a quarter of a bottleneck's output channels; the stem has the first.
      width, depth: multiply `widths` and `stage_sizes`, which are then rounded as EfficientNet's:
        to multiples of 8, and up. With 1 they are as they stand.
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
        (EfficientNet's and MobileNet's last block has a little less than their `drop_path_rate`.)
      bn_momentum: decay of the running statistics; 0.9 is torch's momentum=0.1.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    block: Literal["basic", "bottleneck"]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    width: float = 1.0
    depth: float = 1.0
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
        check_multipliers(self, "width", "depth")
        check_stages(self)
        if self.shortcut == "none" and (self.zero_init_residual or self.drop_path_rate):
            raise UserError("ResNet: zero_init_residual and drop_path_rate turn blocks into their "
                            "shortcuts, and shortcut='none' has none: all outputs and gradients "
                            "would be zero. Set them to False and 0.")
        if self.block == "basic" and (self.groups, self.width_per_group) != (1, 64):
            raise UserError("ResNet: groups and width_per_group are for block='bottleneck'.")
        least = min(width for _, width in self.sizes) * self.width_per_group // 64
        if min(least, self.groups, self.se_reduction or 1) < 1:
            raise UserError("ResNet: groups, se_reduction and width_per_group * widths / 64 must "
                            "be at least 1.")
        super().__post_init__()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        stages = stage_names(len(self.stage_sizes))
        return endpoint_names(("stem", *stages), self.num_classes)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(blocks, width) of each stage: what depth and width leave after rounding."""
        widths = (w if self.width == 1 else round_channels(w * self.width) for w in self.widths)
        return tuple((round_repeats(size * self.depth), width)
                     for size, width in zip(self.stage_sizes, widths, strict=True))

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
        stages = self.sizes
        blocks = sum(size for size, _ in stages)
        rates = iter(np.linspace(0, self.drop_path_rate, blocks).tolist())

        kernel, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = conv(stages[0][1], kernel, stride, name="stem_conv")(x)
        x = nn.relu(norm(name="stem_norm")(x))
        if self.stem == "imagenet":
            x = MaxPool(3, 2, padding=1, name="stem_pool")(x)
        x = end("stem", x)

        for i, (size, width) in enumerate(stages, 1):
            for j in range(1, size + 1):
                x = block(width, 2 if i > 1 and j == 1 else 1, name=f"stage{i}_block{j}",
                          drop_path=functools.partial(DropPath, next(rates), train), **shared)(x)
            x = end(f"stage{i}", x)

        return classify(GlobalAvgPool(name="pool")(x), end, num_classes=self.num_classes,
                        dropout_rate=self.dropout_rate, train=train)
