"""DenseNet-BC (Huang, Liu, van der Maaten & Weinberger, "Densely connected convolutional networks",
arXiv 1608.06993): every layer sees the maps of all layers before it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.models.initializers import he_normal
from cnnjax.models.layers import (
    FLOAT32,
    AvgPool,
    BatchNorm,
    Conv,
    Endpoints,
    GlobalAvgPool,
    MaxPool,
    ModuleDef,
    classify,
    endpoint_names,
)
from cnnjax.models.parts import stage_names
from cnnjax.types import UserError


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1, norm, ReLU, 3x3; the result is concatenated to the input.

    Attributes:
      growth_rate: channels that the layer adds.
      bottleneck: channels of the 1x1 convolution over those of the 3x3.
      dropout_rate: of what the layer adds, while training.
      train: whether to drop.
      conv, norm: makers of the layers, with dtype and train mode bound.
    """

    growth_rate: int
    bottleneck: int
    dropout_rate: float
    train: bool
    conv: ModuleDef
    norm: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(self.norm(name="norm1")(x))
        y = self.conv(self.bottleneck * self.growth_rate, 1, name="conv1")(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.conv(self.growth_rate, 3, name="conv2")(y)
        y = nn.Dropout(self.dropout_rate, deterministic=not self.train)(y)
        return jnp.concatenate([x, y], -1)


class DenseNet(nn.Module):
    """A stem, dense blocks with a transition between each two, norm, global pooling, linear.

    A dense block is named a stage here and its layers the stage's blocks, as in other families.

    Endpoints: stem (after its pooling), stage1, stage2, … (all maps of a dense block, before the
    norm that follows), features.

    Attributes:
      num_classes: outputs; 0 gives the features.
      stage_sizes: layers of each dense block.
      growth_rate: channels that each layer adds, k in the paper.
      stem_width: channels of the stem.
      bottleneck: channels of a layer's 1x1 convolution over those of its 3x3, 4 in the paper.
      compression: share of the channels that a transition keeps, theta in the paper.
      dropout_rate: before the head.
      layer_dropout_rate: after the last convolution of every layer; the paper has 0.2 for small
        data sets without augmentation.
      bn_momentum: decay of the running statistics; 0.9 is torch's momentum=0.1.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    growth_rate: int = 32
    stem_width: int = 64
    bottleneck: int = 4
    compression: float = 0.5
    dropout_rate: float = 0.0
    layer_dropout_rate: float = 0.0
    bn_momentum: float = 0.9
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        counts = (self.growth_rate, self.stem_width, self.bottleneck)
        if not self.stage_sizes or min(counts) < 1 or not 0 < self.compression <= 1:
            raise UserError("DenseNet: stage_sizes must have one entry for each dense block, "
                            "growth_rate, stem_width and bottleneck must be 1 or more, and "
                            "compression above 0 and at most 1; got "
                            f"stage_sizes={self.stage_sizes}, growth_rate={self.growth_rate}, "
                            f"stem_width={self.stem_width}, bottleneck={self.bottleneck}, "
                            f"compression={self.compression}.")
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
        conv = functools.partial(Conv, dtype=self.dtype, kernel_init=he_normal("fan_in"))
        norm = functools.partial(BatchNorm, train=train, momentum=self.bn_momentum)

        x = conv(self.stem_width, 7, 2, name="stem_conv")(x)
        x = nn.relu(norm(name="stem_norm")(x))
        x = end("stem", MaxPool(3, 2, padding=1, name="stem_pool")(x))

        for i, size in enumerate(self.stage_sizes, 1):
            if i > 1:
                x = nn.relu(norm(name=f"transition{i - 1}_norm")(x))
                width = int(x.shape[-1] * self.compression)
                x = conv(width, 1, name=f"transition{i - 1}_conv")(x)
                x = AvgPool(2, name=f"transition{i - 1}_pool")(x)
            for j in range(1, size + 1):
                x = DenseLayer(self.growth_rate, self.bottleneck, self.layer_dropout_rate, train,
                               conv, norm, name=f"stage{i}_block{j}")(x)
            x = end(f"stage{i}", x)

        x = nn.relu(norm(name="final_norm")(x))
        x = GlobalAvgPool(name="pool")(x)
        return classify(x, end, num_classes=self.num_classes, dropout_rate=self.dropout_rate,
                        train=train, bias_init=nn.initializers.zeros)
