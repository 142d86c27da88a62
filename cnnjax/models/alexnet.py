"""AlexNet, as published (Krizhevsky, Sutskever & Hinton, NIPS 2012) and in one tower.

The one tower is torchvision's, the net of "One weird trick" (Krizhevsky, arXiv 1404.5997): fewer
kernels, no groups, no response normalisation. The original ran on two GPUs, half of the channels on
each, which met in the third convolution and in the dense layers alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.initializers import normal, torch_uniform
from cnnjax.models.layers import FLOAT32, Conv, Dense, Endpoints, MaxPool, classify, endpoint_names
from cnnjax.models.parts import AdaptiveAvgPool, local_response_norm
from cnnjax.types import UserError


class AlexNet(nn.Module):
    """Five convolutions and three dense layers, with ReLUs and overlapping max-pooling.

    The first convolution pads 2 pixels. Of 224 rows it then sees 227, the last line of padding
    being out of its reach: these are the 227 pixels that the paper's 55x55 maps need and its "224"
    does not give. Other image sizes are averaged into the 6x6 map that the dense layers take.

    Endpoints: conv1, stage1, conv2, stage2, conv3, conv4, conv5, stage3 (convolutions after their
    ReLU, stages after pooling), features.

    Attributes:
      num_classes: outputs; 0 gives the features, the output of the second dense layer.
      widths: channels of the five convolutions.
      towers: groups of the second, fourth and fifth convolution.
      response_norm: whether local response normalisation (section 3.3) follows the first two
        convolutions. Over all channels, as in Caffe's port: where the towers ended on two GPUs,
        neighbours are those of the other tower here.
      hidden: units of each of the two hidden dense layers.
      initializer: "torch", torch's defaults, or "paper", N(0, 0.01) with biases of 1 in the second,
        fourth and fifth convolution and the hidden dense layers and 0 elsewhere (section 5).
      dropout_rate: of the hidden dense layers.
      drop: whether that drops the layers' "inputs", as torchvision, or "outputs", as the paper.
      dtype: of the computation; parameters and logits are float32.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 192, 384, 256, 256)
    towers: Literal[1, 2] = 1
    response_norm: bool = False
    hidden: int = 4096
    initializer: Literal["paper", "torch"] = "torch"
    dropout_rate: float = 0.5
    drop: Literal["inputs", "outputs"] = "inputs"
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        if len(self.widths) != 5 or self.hidden < 1:
            raise UserError(f"AlexNet: widths={self.widths} must be five numbers, one for each "
                            f"convolution, and hidden={self.hidden} positive.")
        if any(width % self.towers for width in self.widths):
            raise UserError(f"AlexNet: widths={self.widths} must be even with towers=2.")
        super().__post_init__()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        return endpoint_names(("conv1", "stage1", "conv2", "stage2", "conv3", "conv4", "conv5",
                               "stage3"), self.num_classes)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, 3) to logits (B, num_classes)."""
        end = Endpoints(self.endpoints, capture)
        paper = self.initializer == "paper"
        kernel_init = normal(0.01) if paper else torch_uniform
        zeros = nn.initializers.zeros if paper else None
        ones = nn.initializers.ones if paper else None
        drop = functools.partial(nn.Dropout, self.dropout_rate, deterministic=not train)

        # Kernel, stride, groups and bias of each convolution, and the stage that it ends.
        layers = ((11, 4, 1, zeros, 1), (5, 1, self.towers, ones, 2), (3, 1, 1, zeros, None),
                  (3, 1, self.towers, ones, None), (3, 1, self.towers, ones, 3))
        for i, (kernel, stride, groups, bias, stage) in enumerate(layers, 1):
            x = Conv(self.widths[i - 1], kernel, stride, 2 if kernel > 3 else 1, groups,
                     use_bias=True, dtype=self.dtype, kernel_init=kernel_init, bias_init=bias,
                     name=f"conv{i}")(x)
            x = end(f"conv{i}", nn.relu(x))
            if self.response_norm and i <= 2:
                x = local_response_norm(x)
            if stage:
                x = end(f"stage{stage}", MaxPool(3, 2, name=f"pool{stage}")(x))

        x = AdaptiveAvgPool(6, name="pool")(x)
        x = jax.lax.collapse(x, 1)
        for i in (1, 2):
            x = drop()(x) if self.drop == "inputs" else x
            x = nn.relu(Dense(self.hidden, dtype=self.dtype, kernel_init=kernel_init,
                              bias_init=ones, name=f"fc{i}")(x))
            x = drop()(x) if self.drop == "outputs" else x
        return classify(x, end, num_classes=self.num_classes, dropout_rate=0.0, train=train,
                        kernel_init=kernel_init, bias_init=zeros)
