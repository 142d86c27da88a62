"""Pre-activation residual networks (He, Zhang, Ren & Sun, arXiv 1603.05027), as timm has them.

Norm and ReLU come before each convolution, so that nothing stands on the way of the shortcuts. As
in timm the bottleneck has its stride on the 3x3 convolution; the paper has it on the first 1x1.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.initializers import he_normal, normal
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
)
from cnnjax.models.parts import DropPath, check_stages, stage_names


class PreActBottleneck(nn.Module):
    """Norm, ReLU, 1x1, norm, ReLU, 3x3, norm, ReLU, 1x1 to four times the width, plus shortcut.

    Attributes:
      width: channels of the 3x3 convolution.
      stride: of the 3x3 convolution.
      project: whether the shortcut is a 1x1 convolution of the normalised and rectified input, as
        the first block of a stage has it, instead of the input itself.
      conv, norm: makers of the layers, with dtype and train mode bound.
      drop_path: maker of the branch's stochastic depth.
    """

    width: int
    stride: int
    project: bool
    conv: ModuleDef
    norm: ModuleDef
    drop_path: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(self.norm(name="norm1")(x))
        if self.project:
            x = self.conv(4 * self.width, 1, self.stride, name="shortcut_conv")(y)
        y = self.conv(self.width, 1, name="conv1")(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.conv(self.width, 3, self.stride, name="conv2")(y)
        y = nn.relu(self.norm(name="norm3")(y))
        y = self.conv(4 * self.width, 1, name="conv3")(y)
        return self.drop_path(name="drop_path")(y) + x


class ResNetV2(nn.Module):
    """A pre-activation residual network: stem, stages of bottlenecks, norm, pooling, linear.

    Endpoints: stem (after its pooling), stage1, stage2, …, final (after the last norm and ReLU),
    features. Stages are sums that no norm has seen yet.

    Attributes:
      num_classes: outputs; 0 gives the features.
      stage_sizes: blocks of each stage; every stage after the first halves the map.
      widths: of each stage, which puts out four times as many channels. The stem has the first.
      dropout_rate: before the head.
      drop_path_rate: of stochastic depth in the last block, falling linearly to 0 in the first.
      bn_momentum: decay of the running statistics; 0.9 is torch's momentum=0.1.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    bn_momentum: float = 0.9
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        check_stages(self)
        super().__post_init__()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        stages = stage_names(len(self.stage_sizes))
        return endpoint_names(("stem", *stages, "final"), self.num_classes)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, 3) to logits (B, num_classes)."""
        end = Endpoints(self.endpoints, capture)
        conv = functools.partial(Conv, dtype=self.dtype, kernel_init=he_normal("fan_out"))
        norm = functools.partial(BatchNorm, train=train, momentum=self.bn_momentum)
        rates = iter(np.linspace(0, self.drop_path_rate, sum(self.stage_sizes)).tolist())

        x = conv(self.widths[0], 7, 2, name="stem_conv")(x)
        x = end("stem", MaxPool(3, 2, padding=1, name="stem_pool")(x))
        for i, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), 1):
            for j in range(1, size + 1):
                x = PreActBottleneck(
                    width, 2 if i > 1 and j == 1 else 1, project=j == 1, conv=conv, norm=norm,
                    drop_path=functools.partial(DropPath, next(rates), train),
                    name=f"stage{i}_block{j}")(x)
            x = end(f"stage{i}", x)
        x = end("final", nn.relu(norm(name="final_norm")(x)))
        return classify(GlobalAvgPool(name="pool")(x), end, num_classes=self.num_classes,
                        dropout_rate=self.dropout_rate, train=train,
                        kernel_init=normal(0.01),
                        bias_init=nn.initializers.zeros)
