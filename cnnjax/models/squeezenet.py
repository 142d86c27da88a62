"""SqueezeNet (Iandola et al., arXiv 1602.07360): AlexNet's accuracy with a fiftieth of its weights.

Version 1.1 (github.com/forresti/SqueezeNet) pools earlier and takes 2.4 times fewer multiply-adds.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.models.initializers import normal
from cnnjax.models.layers import (
    FLOAT32,
    Conv,
    Endpoints,
    GlobalAvgPool,
    MaxPool,
    ModuleDef,
    endpoint_names,
)
from cnnjax.models.parts import stage_names
from cnnjax.ops.precision import widened
from cnnjax.types import UserError


class Fire(nn.Module):
    """A 1x1 convolution to few channels, and of these a 1x1 and a 3x3, side by side; all with ReLU.

    Attributes:
      width: channels of the first; either of the others puts out four times as many.
      conv: maker of convolutions.
    """

    width: int
    conv: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(self.conv(self.width, 1, name="squeeze")(x))
        one = self.conv(4 * self.width, 1, name="expand1x1")(x)
        three = self.conv(4 * self.width, 3, name="expand3x3")(x)
        return nn.relu(jnp.concatenate([one, three], -1))


class SqueezeNet(nn.Module):
    """Stages of fire modules with max-pooling between them, and a convolution for a head.

    The head is a 1x1 convolution of the last map, and the logits are the means of its *rectified*
    output, so they are not negative, and no linear function of the pooled features.

    Endpoints: stem, stage1, stage2, … (before the next pooling), features (the last map, pooled).

    Attributes:
      num_classes: outputs; 0 gives the features.
      stage_sizes: fire modules of each stage.
      widths: of all fire modules, in order.
      stem_width, stem_kernel: of the first convolution, which has stride 2 and no padding.
      dropout_rate: of the map that the head takes.
      dtype: of the computation; parameters and logits are float32.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    widths: tuple[int, ...] = (16, 16, 32, 32, 48, 48, 64, 64)
    stem_width: int = 64
    stem_kernel: int = 3
    dropout_rate: float = 0.5
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        if sum(self.stage_sizes) != len(self.widths) or not self.widths:
            raise UserError(f"SqueezeNet: widths={self.widths} must have one entry for each of the "
                            f"fire modules of stage_sizes={self.stage_sizes}.")
        if self.stem_width < 1 or self.stem_kernel < 1:
            raise UserError("SqueezeNet: stem_width and stem_kernel must be positive.")
        super().__post_init__()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        stages = stage_names(len(self.stage_sizes))
        return endpoint_names(("stem", *stages), self.num_classes)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, 3) to logits (B, num_classes)."""
        end, widths = Endpoints(self.endpoints, capture), iter(self.widths)
        conv = functools.partial(Conv, use_bias=True, dtype=self.dtype,
                                 kernel_init=nn.initializers.he_uniform(),
                                 bias_init=nn.initializers.zeros)

        x = conv(self.stem_width, self.stem_kernel, 2, padding=0, name="stem_conv")(x)
        x = end("stem", nn.relu(x))
        for i, size in enumerate(self.stage_sizes, 1):
            x = MaxPool(3, 2, ceil_mode=True, name=f"pool{i}")(x)
            for j in range(1, size + 1):
                x = Fire(next(widths), conv, name=f"stage{i}_block{j}")(x)
            x = end(f"stage{i}", x)

        # As `classify` does it, but that the head comes before the pooling.
        x = widened(x)
        features = end("features", GlobalAvgPool(name="pool")(x))
        if not self.num_classes:
            return end.result(features)
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        with jax.default_matmul_precision("highest"):
            x = nn.relu(conv(self.num_classes, 1, kernel_init=normal(0.01),
                             dtype=x.dtype, name="head")(x))
        return end.result(end("logits", x.mean((1, 2))))
