"""MobileNetV2 (Sandler et al., arXiv 1801.04381)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.layers import FLOAT32, Endpoints, GlobalAvgPool, classify, endpoint_names
from cnnjax.models.mbconv import MBConv, makers
from cnnjax.models.parts import DropPath, drop_path_rates, stage_names
from cnnjax.models.scaling import check_multipliers, round_channels
from cnnjax.types import UserError

# The initialisers of the head, as in torchvision.
_HEAD = dict(kernel_init=nn.initializers.normal(0.01), bias_init=nn.initializers.zeros)
# (stride, expansion, channels) of Table 2 of 1801.04381.
_STAGES = ((1, 1, 16), (2, 6, 24), (2, 6, 32), (2, 6, 64), (1, 6, 96), (2, 6, 160), (1, 6, 320))


class MobileNetV2(nn.Module):
    """Stem, stages of MBConv blocks, a 1x1 convolution, global pooling, dropout, linear; ReLU6.

    Endpoints: stem, stage1, …, stage7, features.

    Attributes:
      num_classes: outputs; 0 gives the features.
      width: multiplies all channels, which are then rounded by `round_channels`; the last
        convolution has 1280 at least.
      repeats: blocks of each of the seven stages.
      dropout_rate: before the head.
      drop_path_rate: of stochastic depth (`drop_path_rates`), which the paper does without.
      bn_momentum: decay of the running statistics; 0.9 is torch's momentum=0.1.
      bn_epsilon: added to the variance.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    width: float = 1.0
    repeats: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1)
    dropout_rate: float = 0.2
    drop_path_rate: float = 0.0
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        check_multipliers(self, "width")
        if len(self.repeats) != len(_STAGES):
            raise UserError(f"MobileNetV2: repeats={self.repeats} must have one entry for each of "
                            f"the {len(_STAGES)} stages.")
        super().__post_init__()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        stages = stage_names(len(_STAGES))
        return endpoint_names(("stem", *stages), self.num_classes)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, 3) to logits (B, num_classes)."""
        end = Endpoints(self.endpoints, capture)
        layers = makers(train=train, dtype=self.dtype, bn_momentum=self.bn_momentum,
                        bn_epsilon=self.bn_epsilon, squeeze_activation=nn.relu)
        conv, norm = layers["conv"], layers["norm"]
        rates = iter(drop_path_rates(self.drop_path_rate, sum(self.repeats)))

        x = conv(round_channels(32 * self.width), 3, 2, name="stem_conv")(x)
        x = end("stem", nn.relu6(norm(name="stem_norm")(x)))
        for i, ((stride, expand, channels), repeats) in enumerate(
                zip(_STAGES, self.repeats, strict=True), 1):
            for j in range(1, repeats + 1):
                x = MBConv(round_channels(channels * self.width), 3, stride if j == 1 else 1,
                           x.shape[-1] * expand, 0, nn.relu6, **layers,
                           drop_path=functools.partial(DropPath, next(rates), train),
                           name=f"stage{i}_block{j}")(x)
            x = end(f"stage{i}", x)

        x = conv(round_channels(1280 * max(1.0, self.width)), 1, name="head_conv")(x)
        x = GlobalAvgPool(name="pool")(nn.relu6(norm(name="head_norm")(x)))
        return classify(x, end, num_classes=self.num_classes, dropout_rate=self.dropout_rate,
                        train=train, **_HEAD)
