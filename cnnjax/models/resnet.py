"""Residual networks (He, Zhang, Ren & Sun, arXiv 1512.03385), for ImageNet and for CIFAR.

The bottleneck has its stride on the 3x3 convolution ("v1.5", as torchvision and the ImageNet
literature since 2017); the paper has it on the first 1x1.
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
from cnnjax.types import UserError

Shortcut = Literal["projection", "pad", "none"]


def add_shortcut(y: jax.Array, x: jax.Array, stride: int, shortcut: Shortcut, conv: ModuleDef,
                 norm: ModuleDef) -> jax.Array:
    """Adds a block's input to its output, within the block's `__call__`.

    Where the block changes the shape, "projection" is the paper's option B, a 1x1 convolution and
    a batch norm, and "pad" its option A, every `stride`-th pixel and zeros for the new channels,
    half of them on either side. "none" adds nothing: a plain network.
    """
    if shortcut == "none":
        return y
    if x.shape == y.shape:
        return y + x
    if shortcut == "projection":
        x = conv(y.shape[-1], 1, stride, name="shortcut_conv")(x)
        return y + norm(name="shortcut_norm")(x)
    new = y.shape[-1] - x.shape[-1]
    edges = ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2))
    return y + jnp.pad(x[:, ::stride, ::stride], edges)


class BasicBlock(nn.Module):
    """3x3, norm, ReLU, 3x3, norm, plus the shortcut, ReLU.

    Attributes:
      width: output channels.
      stride: of the first convolution.
      shortcut: as in `add_shortcut`.
      conv, norm: makers of the layers, with dtype and train mode bound.
      last_scale: initialiser of the last norm's scale.
    """

    width: int
    stride: int
    shortcut: Shortcut
    conv: ModuleDef
    norm: ModuleDef
    last_scale: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.width, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(self.width, 3, name="conv2")(y)
        y = self.norm(name="norm2", scale_init=self.last_scale)(y)
        return nn.relu(add_shortcut(y, x, self.stride, self.shortcut, self.conv, self.norm))


class Bottleneck(nn.Module):
    """1x1, norm, ReLU, 3x3, norm, ReLU, 1x1 to four times the width, norm, plus shortcut, ReLU.

    Attributes: as `BasicBlock`; `width` is that of the 3x3 convolution, which has the stride.
    """

    width: int
    stride: int
    shortcut: Shortcut
    conv: ModuleDef
    norm: ModuleDef
    last_scale: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.width, 1, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(self.width, 3, self.stride, name="conv2")(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.conv(4 * self.width, 1, name="conv3")(y)
        y = self.norm(name="norm3", scale_init=self.last_scale)(y)
        return nn.relu(add_shortcut(y, x, self.stride, self.shortcut, self.conv, self.norm))


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """A residual network: stem, stages of blocks, global average pooling, linear.

    Endpoints: stem (after its pooling), stage1, stage2, …, features.

    Attributes:
      num_classes: outputs; 0 gives the features.
      stage_sizes: blocks of each stage; every stage after the first halves the map.
      block: "basic" or "bottleneck".
      widths: channels of each stage; a bottleneck puts out four times as many. The stem has those
        of the first.
      stem: "imagenet", a 7x7 convolution of stride 2 and a 3x3 max-pooling of stride 2, or
        "cifar", a 3x3 convolution.
      shortcut: "projection", "pad" or "none", as in `add_shortcut`.
      conv_init: He's normal initialisation (arXiv 1502.01852), by "fan_out" as in torchvision or
        "fan_in", that paper's forward case. The head has torch's default, as in torchvision.
      zero_init_residual: whether the last norm of each block starts at zero, so that the network
        starts as its shortcuts (Goyal et al., arXiv 1706.02677, section 5.1). False, as in
        torchvision, so that a default model is the one whose published accuracy it is held to.
      dropout_rate: before the head.
      bn_momentum: decay of the running statistics; 0.9 is torch's momentum=0.1.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    block: Literal["basic", "bottleneck"]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: Literal["imagenet", "cifar"] = "imagenet"
    shortcut: Shortcut = "projection"
    conv_init: Literal["fan_in", "fan_out"] = "fan_out"
    zero_init_residual: bool = False
    dropout_rate: float = 0.0
    bn_momentum: float = 0.9
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        if len(self.stage_sizes) != len(self.widths) or not self.widths:
            raise UserError(f"ResNet: stage_sizes={self.stage_sizes} and widths={self.widths} must "
                            "have one entry for each stage.")
        if self.zero_init_residual and self.shortcut == "none":
            raise UserError("ResNet: zero_init_residual=True starts every block as its shortcut, "
                            "and shortcut='none' has none: all outputs and gradients would be "
                            "zero. Set zero_init_residual=False.")
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
        last_scale = nn.initializers.zeros if self.zero_init_residual else nn.initializers.ones

        kernel, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = conv(self.widths[0], kernel, stride, name="stem_conv")(x)
        x = nn.relu(norm(name="stem_norm")(x))
        if self.stem == "imagenet":
            x = MaxPool(3, 2, padding=1, name="stem_pool")(x)
        x = end("stem", x)

        for i, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), 1):
            for j in range(1, size + 1):
                stride = 2 if i > 1 and j == 1 else 1
                x = BLOCKS[self.block](width, stride, self.shortcut, conv, norm, last_scale,
                                       name=f"stage{i}_block{j}")(x)
            x = end(f"stage{i}", x)

        x = GlobalAvgPool(name="pool")(x)
        return classify(x, end, num_classes=self.num_classes, dropout_rate=self.dropout_rate,
                        train=train)
