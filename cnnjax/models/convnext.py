"""ConvNeXt (Liu, Mao, Wu, Feichtenhofer, Darrell & Xie, "A ConvNet for the 2020s", arXiv
2201.03545): a ResNet with what vision transformers had changed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.initializers import normal, parameter
from cnnjax.models.layers import (
    FLOAT32,
    Conv,
    Dense,
    Endpoints,
    GlobalAvgPool,
    ModuleDef,
    classify,
    endpoint_names,
    spread,
)
from cnnjax.models.parts import DropPath, LayerNorm, check_stages, stage_names


class Block(nn.Module):
    """7x7 depthwise, layer norm, dense to four times the width, GELU, dense, scale, plus the input.

    GELU is the exact one, x times the normal distribution function.

    Attributes:
      layer_scale: initial value of the scale, one number a channel (arXiv 2103.17239).
      drop_path_rate: of this block's stochastic depth.
      train: whether to drop.
      conv, dense: makers of the layers, with dtype bound.
    """

    layer_scale: float
    drop_path_rate: float
    train: bool
    conv: ModuleDef
    dense: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        y = self.conv(width, 7, groups=width, name="conv")(x)
        y = LayerNorm(name="norm")(y)
        y = nn.gelu(self.dense(4 * width, name="fc1")(y), approximate=False)
        y = self.dense(width, name="fc2")(y)
        start = nn.initializers.constant(self.layer_scale)
        y *= spread(parameter(self, "layer_scale", start, (width,)), y)
        return x + DropPath(self.drop_path_rate, self.train, name="drop_path")(y)


class ConvNeXt(nn.Module):
    """A 4x4 stem of stride 4, stages of blocks, global average pooling, layer norm, linear.

    Endpoints: stem, stage1, stage2, …, features, which are the pooled and normalised ones.

    Attributes:
      num_classes: outputs; 0 gives the features.
      stage_sizes: blocks of each stage; every stage after the first halves the map.
      widths: channels of each stage.
      layer_scale: initial value of the scale of every residual branch.
      drop_path_rate: stochastic depth of the last block; the first has none, and it rises linearly
        between them. The named models have the rates of the paper (table 5) and of torchvision.
      dropout_rate: before the head.
      dtype: of the computation; parameters and logits are float32.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    widths: tuple[int, ...]
    layer_scale: float = 1e-6
    drop_path_rate: float = 0.0
    dropout_rate: float = 0.0
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        check_stages(self)
        super().__post_init__()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        stages = stage_names(len(self.stage_sizes))
        return endpoint_names(("stem", *stages), self.num_classes)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, 3) to logits (B, num_classes)."""
        end = Endpoints(self.endpoints, capture)
        kinds = dict(dtype=self.dtype, kernel_init=normal(0.02), bias_init=nn.initializers.zeros)
        conv = functools.partial(Conv, use_bias=True, **kinds)
        dense = functools.partial(Dense, **kinds)
        blocks = sum(self.stage_sizes)

        x = conv(self.widths[0], 4, 4, padding=0, name="stem_conv")(x)
        x = end("stem", LayerNorm(name="stem_norm")(x))

        before = 0
        for i, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), 1):
            if i > 1:
                x = LayerNorm(name=f"stage{i}_downsample_norm")(x)
                x = conv(width, 2, 2, padding=0, name=f"stage{i}_downsample_conv")(x)
            for j in range(1, size + 1):
                rate = self.drop_path_rate * before / max(blocks - 1, 1)
                x = Block(self.layer_scale, rate, train, conv, dense, name=f"stage{i}_block{j}")(x)
                before += 1
            x = end(f"stage{i}", x)

        x = LayerNorm(name="head_norm")(GlobalAvgPool(name="pool")(x))
        return classify(x, end, num_classes=self.num_classes, dropout_rate=self.dropout_rate,
                        train=train, kernel_init=normal(0.02), bias_init=nn.initializers.zeros)
