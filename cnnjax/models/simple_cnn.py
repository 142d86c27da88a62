"""The textbook CNN: [Conv -> norm -> ReLU -> Pool] x N -> [FC] x M.

With its defaults, three blocks of 32, 64 and 128 channels whose last pooling is global, it has
94,986 parameters for 10 classes of colour images: 896 + 64, 18,496 + 128, 73,856 + 256, 1,290.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.layers import (
    FLOAT32,
    BatchNorm,
    Conv,
    Dense,
    Endpoints,
    GlobalAvgPool,
    MaxPool,
    classify,
    endpoint_names,
)
from cnnjax.models.parts import check_momentum
from cnnjax.models.scaling import check_multipliers, round_channels, round_repeats
from cnnjax.types import UserError


class SimpleCNN(nn.Module):
    """Blocks of a 3x3 convolution with bias, batch norm, ReLU and 2x2 max-pooling, then dense.

    Endpoints: conv1, stage1, conv2, stage2, … (after the block's last ReLU, and after its
    pooling), features.

    Attributes:
      num_classes: outputs; 0 gives the features.
      widths: channels of each block.
      width: multiplies `widths`, which are then rounded to multiples of 8; with 1 they stay.
      depth: convolutions of each block, rounded up.
      hidden: units of the dense layers with ReLU before the head, none by default.
      batch_norm: whether blocks normalise.
      global_pool: whether the last block averages over the whole map instead of max-pooling. If
        not, the map is flattened, and the parameters fit one input size only.
      dropout_rate: before the head and before every hidden layer.
      bn_momentum: decay of the running statistics; 0.9 is torch's momentum=0.1.
      dtype: of the computation; parameters and logits are float32.
    """

    num_classes: int
    widths: tuple[int, ...] = (32, 64, 128)
    width: float = 1.0
    depth: float = 1.0
    hidden: tuple[int, ...] = ()
    batch_norm: bool = True
    global_pool: bool = True
    dropout_rate: float = 0.0
    bn_momentum: float = 0.9
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        check_multipliers(self, "width", "depth")
        check_momentum(self, self.batch_norm, "batch_norm=True")
        if not self.widths:
            raise UserError("SimpleCNN: widths=() leaves no block; give at least one width, such "
                            "as widths=(32,).")
        super().__post_init__()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        blocks = range(1, len(self.widths) + 1)
        stages = [name for i in blocks for name in (f"conv{i}", f"stage{i}")]
        return endpoint_names(stages, self.num_classes)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(convolutions, width) of each block: what depth and width leave after rounding."""
        return tuple((round_repeats(self.depth), w if self.width == 1 else
                      round_channels(w * self.width)) for w in self.widths)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, C) to logits (B, num_classes)."""
        end = Endpoints(self.endpoints, capture)
        for i, (convolutions, width) in enumerate(self.sizes, 1):
            for j in range(1, convolutions + 1):
                number = f"{i}" if j == 1 else f"{i}_{j}"
                x = Conv(width, 3, use_bias=True, dtype=self.dtype, name=f"conv{number}")(x)
                if self.batch_norm:
                    x = BatchNorm(train, self.bn_momentum, name=f"norm{number}")(x)
                x = nn.relu(x)
            x = end(f"conv{i}", x)
            if i < len(self.widths) or not self.global_pool:
                x = MaxPool(2, name=f"pool{i}")(x)
            x = end(f"stage{i}", x)
        x = GlobalAvgPool(name="pool")(x) if self.global_pool else jax.lax.collapse(x, 1)
        for i, units in enumerate(self.hidden, 1):
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
            x = nn.relu(Dense(units, dtype=self.dtype, name=f"fc{i}")(x))
        return classify(x, end, num_classes=self.num_classes, dropout_rate=self.dropout_rate,
                        train=train)
