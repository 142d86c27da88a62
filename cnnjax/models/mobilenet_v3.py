"""MobileNetV3 (Howard et al., arXiv 1905.02244), with torchvision's squeeze-excitation.

Its units are a quarter of the hidden channels, rounded to multiples of 8.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.layers import FLOAT32, Dense, Endpoints, GlobalAvgPool, classify, endpoint_names
from cnnjax.models.mbconv import MBConv, makers
from cnnjax.models.parts import ACTIVATIONS, DropPath, drop_path_rates, stage_names
from cnnjax.models.scaling import check_multipliers, round_channels

# The initialisers of the two dense layers, as in torchvision.
_HEAD = dict(kernel_init=nn.initializers.normal(0.01), bias_init=nn.initializers.zeros)


class Stage(NamedTuple):
    """Blocks of one width.

    Attributes:
      kernel: of the depthwise convolutions, in pixels.
      stride: of the first block.
      channels: output channels.
      hidden: channels of each block's depthwise convolution.
      squeeze_excite: whether the blocks have it.
      activation: by name.
    """

    kernel: int
    stride: int
    channels: int
    hidden: tuple[int, ...]
    squeeze_excite: bool
    activation: str


# Tables 1 and 2 of 1905.02244, and the units of the layer before the head.
_SIZES = {
    "large": ((
        Stage(3, 1, 16, (16,), False, "relu"),
        Stage(3, 2, 24, (64, 72), False, "relu"),
        Stage(5, 2, 40, (72, 120, 120), True, "relu"),
        Stage(3, 2, 80, (240, 200, 184, 184), False, "hard_swish"),
        Stage(3, 1, 112, (480, 672), True, "hard_swish"),
        Stage(5, 2, 160, (672, 960, 960), True, "hard_swish"),
    ), 1280),
    "small": ((
        Stage(3, 2, 16, (16,), True, "relu"),
        Stage(3, 2, 24, (72, 88), False, "relu"),
        Stage(5, 2, 40, (96, 240, 240), True, "hard_swish"),
        Stage(5, 1, 48, (120, 144), True, "hard_swish"),
        Stage(5, 2, 96, (288, 576, 576), True, "hard_swish"),
    ), 1024),
}


class MobileNetV3(nn.Module):
    """Stem, MBConv blocks, a 1x1 convolution, global pooling, dense, dropout, linear.

    ReLU in the first stages, hard-swish after them and at both ends. Squeeze-excitation has a ReLU
    and a hard sigmoid.

    Endpoints: stem, stage1, stage2, …, features, which follow the dense layer.

    Attributes:
      num_classes: outputs; 0 gives the features.
      size: "large" or "small".
      width: multiplies all channels, which are then rounded by `round_channels`.
      dropout_rate: before the head.
      drop_path_rate: of stochastic depth (`drop_path_rates`), which the paper does without.
      bn_momentum: decay of the running statistics; 0.99 is torch's momentum=0.01.
      bn_epsilon: added to the variance.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    size: Literal["large", "small"] = "large"
    width: float = 1.0
    dropout_rate: float = 0.2
    drop_path_rate: float = 0.0
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        check_multipliers(self, "width")
        super().__post_init__()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        stages = stage_names(len(_SIZES[self.size][0]))
        return endpoint_names(("stem", *stages), self.num_classes)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, 3) to logits (B, num_classes)."""
        end = Endpoints(self.endpoints, capture)
        layers = makers(train=train, dtype=self.dtype, bn_momentum=self.bn_momentum,
                        bn_epsilon=self.bn_epsilon, squeeze_activation=nn.relu,
                        squeeze_gate=nn.hard_sigmoid)
        conv, norm = layers["conv"], layers["norm"]
        stages, units = _SIZES[self.size]
        rates = iter(drop_path_rates(self.drop_path_rate, sum(len(row.hidden) for row in stages)))

        x = conv(round_channels(16 * self.width), 3, 2, name="stem_conv")(x)
        x = end("stem", nn.hard_swish(norm(name="stem_norm")(x)))
        for i, row in enumerate(stages, 1):
            for j, channels in enumerate(row.hidden, 1):
                hidden = round_channels(channels * self.width)
                squeeze = round_channels(hidden // 4) if row.squeeze_excite else 0
                x = MBConv(round_channels(row.channels * self.width), row.kernel,
                           row.stride if j == 1 else 1, hidden, squeeze,
                           ACTIVATIONS[row.activation], **layers,
                           drop_path=functools.partial(DropPath, next(rates), train),
                           name=f"stage{i}_block{j}")(x)
            x = end(f"stage{i}", x)

        x = conv(6 * x.shape[-1], 1, name="head_conv")(x)
        x = GlobalAvgPool(name="pool")(nn.hard_swish(norm(name="head_norm")(x)))
        x = Dense(round_channels(units * self.width), dtype=self.dtype, name="head_dense",
                  **_HEAD)(x)
        return classify(nn.hard_swish(x), end, num_classes=self.num_classes,
                        dropout_rate=self.dropout_rate, train=train, **_HEAD)
