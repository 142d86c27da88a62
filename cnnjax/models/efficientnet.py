"""EfficientNet (Tan & Le, arXiv 1905.11946), its Lite form, and EfficientNetV2 (2104.00298).

One table of stages gives all of them: the first paper's Table 1, of B0, the second's Table 4, of
V2-S, and M and L from its authors' code. B1 to B7 and everything between are B0 with other
multipliers of depth and width; see `scaling.compound_scaling`. The Lite nets (Liu, TensorFlow blog,
March 2020) leave out what mobile accelerators are bad at: squeeze-excitation, and an activation
other than ReLU6.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.initializers import torch_uniform_bias
from cnnjax.models.layers import FLOAT32, Endpoints, GlobalAvgPool, classify, endpoint_names
from cnnjax.models.mbconv import FusedMBConv, MBConv, makers
from cnnjax.models.parts import ACTIVATIONS, DropPath, drop_path_rates, stage_names
from cnnjax.models.scaling import check_multipliers, round_channels, round_repeats


class Stage(NamedTuple):
    """A row of the papers' tables: blocks that are alike but for the stride of the first.

    Attributes:
      kernel: of the convolution that is not 1x1, in pixels.
      stride: of the first block.
      expand: hidden channels of a block, as a multiple of its input's.
      channels: output channels, before scaling.
      repeats: blocks, before scaling.
      se_ratio: units of the squeeze-excitation, as a fraction of the block's input channels.
      fused: whether the blocks are fused.
    """

    kernel: int
    stride: int
    expand: int
    channels: int
    repeats: int
    se_ratio: float = 0.0
    fused: bool = False


def _v2(channels: Sequence[int], repeats: Sequence[int]) -> tuple[Stage, ...]:
    """The stages of an EfficientNetV2, whose sizes differ in channels and repeats alone."""
    shapes = [(1, 1), (2, 4), (2, 4), (2, 4), (1, 6), (2, 6), (1, 6)]
    rows = zip(shapes, channels, repeats, strict=False)
    return tuple(Stage(3, stride, expand, width, n, 0.25 if i > 2 else 0.0, fused=i <= 2)
                 for i, ((stride, expand), width, n) in enumerate(rows))


_V1 = (Stage(3, 1, 1, 16, 1, 0.25), Stage(3, 2, 6, 24, 2, 0.25), Stage(5, 2, 6, 40, 2, 0.25),
       Stage(3, 2, 6, 80, 3, 0.25), Stage(5, 1, 6, 112, 3, 0.25), Stage(5, 2, 6, 192, 4, 0.25),
       Stage(3, 1, 6, 320, 1, 0.25))
# (channels of the stem, stages)
TRUNKS: dict[str, tuple[int, tuple[Stage, ...]]] = {
    "v1": (32, _V1),
    "lite": (32, tuple(row._replace(se_ratio=0.0) for row in _V1)),
    "v2_s": (24, _v2((24, 48, 64, 128, 160, 256), (2, 4, 4, 6, 9, 15))),
    "v2_m": (24, _v2((24, 48, 80, 160, 176, 304, 512), (3, 5, 5, 7, 14, 18, 5))),
    "v2_l": (32, _v2((32, 64, 96, 192, 224, 384, 640), (4, 7, 7, 10, 19, 25, 7))),
}
_HEAD = 1280


class EfficientNet(nn.Module):
    """Stem, stages of (fused) MBConv blocks, a 1x1 convolution, global pooling, dropout, linear.

    Endpoints: stem, stage1, stage2, …, features.

    Attributes:
      num_classes: outputs; 0 gives the features.
      trunk: row of `TRUNKS`: stages and stem.
      width: multiplies all channels, which are then rounded by `round_channels`.
      depth: multiplies the blocks of every stage, which are then rounded up.
      scale_ends: whether stem and head are scaled in width too, and the first and last stage in
        depth. The Lite nets keep them.
      activation: by name.
      padding: "symmetric", as torchvision's, or "same", TensorFlow's.
      depthwise_init: He's normal initialisation of the depthwise kernels, as of all others by
        "fan_out" in torchvision, which does not divide it by the groups; "fan_in", k², is what it
        is when divided, as in TensorFlow and timm.
      dropout_rate: before the head.
      drop_path_rate: of stochastic depth; block i of n has i / n of it (`drop_path_rates`), so
        the last a little less than all.
      bn_momentum: decay of the running statistics; 0.9 is torch's momentum=0.1.
      bn_epsilon: added to the variance.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    trunk: Literal["v1", "lite", "v2_s", "v2_m", "v2_l"] = "v1"
    width: float = 1.0
    depth: float = 1.0
    scale_ends: bool = True
    activation: Literal["silu", "relu6", "hard_swish", "relu"] = "silu"
    padding: Literal["symmetric", "same"] = "symmetric"
    depthwise_init: Literal["fan_out", "fan_in"] = "fan_out"
    dropout_rate: float = 0.2
    drop_path_rate: float = 0.2
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        check_multipliers(self, "width", "depth")
        super().__post_init__()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        stages = stage_names(len(TRUNKS[self.trunk][1]))
        return endpoint_names(("stem", *stages), self.num_classes)

    def stages(self) -> tuple[Stage, ...]:
        """Returns the stages of this network, scaled in width and depth."""
        rows = TRUNKS[self.trunk][1]
        kept = () if self.scale_ends else (0, len(rows) - 1)
        return tuple(row._replace(
            channels=round_channels(row.channels * self.width),
            repeats=row.repeats if i in kept else round_repeats(row.repeats * self.depth))
            for i, row in enumerate(rows))

    @property
    def sizes(self) -> tuple:
        """What width and depth leave after rounding: stem, (channels, repeats) of stages, head."""
        ends = self.width if self.scale_ends else 1.0
        return (round_channels(TRUNKS[self.trunk][0] * ends),
                tuple((row.channels, row.repeats) for row in self.stages()),
                round_channels(_HEAD * ends))

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, 3) to logits (B, num_classes)."""
        end = Endpoints(self.endpoints, capture)
        (stem, _, head), stages = self.sizes, self.stages()
        activation = ACTIVATIONS[self.activation]
        layers = makers(train=train, dtype=self.dtype, bn_momentum=self.bn_momentum,
                        bn_epsilon=self.bn_epsilon, squeeze_activation=activation,
                        same_padding=self.padding == "same", depthwise_init=self.depthwise_init)
        conv, norm = layers["conv"], layers["norm"]
        rates = iter(drop_path_rates(self.drop_path_rate, sum(row.repeats for row in stages)))

        x = conv(stem, 3, 2, name="stem_conv")(x)
        x = end("stem", activation(norm(name="stem_norm")(x)))
        for i, row in enumerate(stages, 1):
            for j in range(1, row.repeats + 1):
                drop_path = functools.partial(DropPath, next(rates), train)
                x = _block(row, row.stride if j == 1 else 1, x.shape[-1], activation, layers,
                           drop_path, name=f"stage{i}_block{j}")(x)
            x = end(f"stage{i}", x)

        x = conv(head, 1, name="head_conv")(x)
        x = GlobalAvgPool(name="pool")(activation(norm(name="head_norm")(x)))
        return classify(x, end, num_classes=self.num_classes, dropout_rate=self.dropout_rate,
                        train=train, kernel_init=torch_uniform_bias(self.num_classes),
                        bias_init=nn.initializers.zeros)


def _block(row: Stage, stride: int, inputs: int, activation, layers, drop_path, name: str):
    """A block of a stage, for `inputs` channels."""
    shape = (row.channels, row.kernel, stride, inputs * row.expand)
    if row.fused:
        return FusedMBConv(*shape, activation, layers["conv"], layers["norm"], drop_path, name=name)
    return MBConv(*shape, int(inputs * row.se_ratio), activation, drop_path=drop_path, name=name,
                  **layers)
