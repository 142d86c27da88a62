"""VGG (Simonyan & Zisserman, arXiv 1409.1556): 3x3 convolutions, and depth.

Two of them see what a 5x5 sees, three what a 7x7 sees, with fewer parameters and more ReLUs. The
variants with batch norm are torchvision's; their convolutions kept their biases.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.initializers import he_normal, normal
from cnnjax.models.layers import (
    FLOAT32,
    BatchNorm,
    Conv,
    Dense,
    Endpoints,
    MaxPool,
    classify,
    endpoint_names,
)
from cnnjax.models.parts import AdaptiveAvgPool, check_momentum, check_stages, stage_names
from cnnjax.types import UserError


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each ended by 2x2 max-pooling, and three dense layers.

    Images of other sizes than 224 are averaged into the 7x7 map that the dense layers take.

    Endpoints: stage1, stage2, … (after their pooling), features.

    Attributes:
      num_classes: outputs; 0 gives the features, the output of the second dense layer.
      stage_sizes: convolutions of each stage.
      widths: channels of each stage.
      hidden: units of each of the two hidden dense layers.
      batch_norm: whether convolutions are followed by it.
      dropout_rate: of the outputs of the hidden dense layers.
      bn_momentum: decay of the running statistics; 0.9 is torch's momentum=0.1.
      dtype: of the computation; parameters and logits are float32.

    Initialisers are torchvision's: He's by fan-out in the convolutions, N(0, 0.01) in the dense
    layers, biases of zero. The paper trained its shallowest net from N(0, 0.1) and started the
    others from that one.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: int = 4096
    batch_norm: bool = False
    dropout_rate: float = 0.5
    bn_momentum: float = 0.9
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        check_stages(self)
        check_momentum(self, self.batch_norm, "batch_norm=True")
        if self.hidden < 1:
            raise UserError(f"VGG: hidden must be positive, got {self.hidden}.")
        super().__post_init__()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        stages = stage_names(len(self.stage_sizes))
        return endpoint_names(stages, self.num_classes)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, 3) to logits (B, num_classes)."""
        end = Endpoints(self.endpoints, capture)
        for i, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), 1):
            for j in range(1, size + 1):
                x = Conv(width, 3, use_bias=True, dtype=self.dtype,
                         kernel_init=he_normal("fan_out"), bias_init=nn.initializers.zeros,
                         name=f"stage{i}_conv{j}")(x)
                if self.batch_norm:
                    x = BatchNorm(train, self.bn_momentum, name=f"stage{i}_norm{j}")(x)
                x = nn.relu(x)
            x = end(f"stage{i}", MaxPool(2, name=f"stage{i}_pool")(x))

        x = AdaptiveAvgPool(7, name="pool")(x)
        x = jax.lax.collapse(x, 1)
        dense = dict(kernel_init=normal(0.01), bias_init=nn.initializers.zeros)
        x = nn.relu(Dense(self.hidden, dtype=self.dtype, name="fc1", **dense)(x))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        x = nn.relu(Dense(self.hidden, dtype=self.dtype, name="fc2", **dense)(x))
        return classify(x, end, num_classes=self.num_classes, dropout_rate=self.dropout_rate,
                        train=train, **dense)
