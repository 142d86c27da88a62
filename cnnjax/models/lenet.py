"""LeNet-5 (LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document
recognition", Proceedings of the IEEE 86(11), 1998).

The paper's subsampling has a coefficient and a bias a map, its tanh is scaled to
1.7159 tanh(2 x / 3), and its output layer measures distances to fixed bitmaps. Here pooling is a
plain mean, tanh is plain and the output is linear, as in nearly every later account of the net.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax import ops
from cnnjax.models.initializers import parameter, torch_uniform_bias
from cnnjax.models.layers import (
    FLOAT32,
    AvgPool,
    Conv,
    Dense,
    Endpoints,
    classify,
    endpoint_names,
    spread,
)

# Table I of the paper: the maps of S2 that each map of C3 sees.
TABLE_I = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


class SparseConv(nn.Module):
    """A valid convolution in which each output map sees some of the input maps only.

    Parameters: kernel (kernel_size, kernel_size, connections), one slice for each pair of maps
    that are connected, ordered by output map, then input map; bias (output maps,). Initialised
    U(-1/sqrt(fan_in), 1/sqrt(fan_in)) with each output map's own fan-in.

    Attributes:
      table: for each output map, the input maps that it sees.
      kernel_size: height and width in pixels.
      dtype: of the computation and of the result.
    """

    table: tuple[tuple[int, ...], ...]
    kernel_size: int
    dtype: np.dtype = FLOAT32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        k, features = self.kernel_size, len(self.table)
        sources = [source for sources in self.table for source in sources]
        targets = [target for target, sources in enumerate(self.table) for _ in sources]
        fan_in = k * k * np.array([len(sources) for sources in self.table], np.float32)
        slices = parameter(self, "kernel", torch_uniform_bias(fan_in[targets]),
                           (k, k, len(sources)))
        bias = parameter(self, "bias", torch_uniform_bias(fan_in), (features,))
        # A product with a constant 0/1 matrix puts the slices in place, and its transpose picks
        # the gradient of the connected pairs: XLA's scatter is a scalar loop on CPU. HIGHEST keeps
        # accelerators from rounding the weights on the way.
        place = np.zeros((len(sources), x.shape[-1], features), np.float32)
        place[np.arange(len(sources)), sources, targets] = 1
        kernel = jnp.einsum("hwk,kcd->hwcd", slices, place, precision=lax.Precision.HIGHEST)
        y = ops.conv2d(x.astype(self.dtype), kernel, padding="VALID")
        return y + spread(bias, y)


class LeNet5(nn.Module):
    """Conv 5x5 (6), pool, conv 5x5 (16), pool, dense 120, 84 and the head, with tanh between.

    60,806 parameters for 10 classes, 61,706 with full connections: 156, 0, 1,516 (2,416), 0,
    48,120, 10,164 and 850. The parameters fit one input size only.

    Endpoints: conv1, stage1, conv2, stage2 (after the tanh, and after the pooling), fc1, features.

    Attributes:
      num_classes: outputs; 0 gives the features, the 84 units of the last hidden layer.
      connections: between the first pooling and the second convolution, "table" for the paper's
        Table I or "full".
      padding: of the first convolution, in pixels. None pads 2 where the image is smaller than the
        paper's 32 px, so that MNIST's 28 px also give maps of 28, 14, 10 and 5 px.
      dropout_rate: before the head.
      dtype: of the computation; parameters and logits are float32.
    """

    num_classes: int
    connections: Literal["table", "full"] = "table"
    padding: int | None = None
    dropout_rate: float = 0.0
    dtype: np.dtype = FLOAT32

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        return endpoint_names(("conv1", "stage1", "conv2", "stage2", "fc1"), self.num_classes)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, C) to logits (B, num_classes)."""
        end = Endpoints(self.endpoints, capture)
        padding = self.padding
        if padding is None:
            padding = 2 if min(x.shape[1:3]) < 32 else 0
        x = Conv(6, 5, padding=padding, use_bias=True, dtype=self.dtype, name="conv1")(x)
        x = end("conv1", ops.tanh(x))
        x = end("stage1", AvgPool(2, name="pool1")(x))
        if self.connections == "table":
            x = SparseConv(TABLE_I, 5, dtype=self.dtype, name="conv2")(x)
        else:
            x = Conv(16, 5, padding=0, use_bias=True, dtype=self.dtype, name="conv2")(x)
        x = end("conv2", ops.tanh(x))
        x = end("stage2", AvgPool(2, name="pool2")(x))
        x = lax.collapse(x, 1)
        x = end("fc1", ops.tanh(Dense(120, dtype=self.dtype, name="fc1")(x)))
        x = ops.tanh(Dense(84, dtype=self.dtype, name="fc2")(x))
        return classify(x, end, num_classes=self.num_classes, dropout_rate=self.dropout_rate,
                        train=train)
