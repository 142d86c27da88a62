"""The inverted residual of the MobileNets and EfficientNets, plain and fused.

MobileNetV2 (arXiv 1801.04381) has it as expansion, depthwise convolution and linear projection;
MobileNetV3 (1905.02244) and EfficientNet (1905.11946) add squeeze-excitation; EfficientNetV2
(2104.00298) fuses the first two convolutions into one in its early stages.
"""

from __future__ import annotations

import functools
from typing import Literal

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.initializers import he_normal
from cnnjax.models.layers import BatchNorm, Conv, ModuleDef
from cnnjax.models.parts import Activation, SqueezeExcite


class MBConv(nn.Module):
    """1x1 to `hidden` channels, depthwise, squeeze-excitation, linear 1x1, plus the input.

    Each convolution is followed by a norm, and but for the last by the activation. The first one is
    left out where it would not widen, and the input is added where the stride is 1 and the channels
    are kept: what a stride of 2 makes of a map of one pixel has its shape, and gets nothing added.

    Attributes:
      features: output channels.
      kernel_size: of the depthwise convolution, in pixels.
      stride: of the same.
      hidden: channels of the depthwise convolution.
      squeeze: units of the squeeze-excitation; 0 leaves it out.
      activation: see above.
      conv, depthwise, norm, squeeze_excite, drop_path: makers of the layers, with dtype, train mode
        and initialisers bound.
    """

    features: int
    kernel_size: int
    stride: int
    hidden: int
    squeeze: int
    activation: Activation
    conv: ModuleDef
    depthwise: ModuleDef
    norm: ModuleDef
    squeeze_excite: ModuleDef
    drop_path: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        if self.hidden != x.shape[-1]:
            y = self.conv(self.hidden, 1, name="expand_conv")(y)
            y = self.activation(self.norm(name="expand_norm")(y))
        y = self.depthwise(self.hidden, self.kernel_size, self.stride, groups=self.hidden,
                           name="depthwise_conv")(y)
        y = self.activation(self.norm(name="depthwise_norm")(y))
        if self.squeeze:
            y = self.squeeze_excite(self.squeeze, name="squeeze")(y)
        y = self.conv(self.features, 1, name="project_conv")(y)
        y = self.norm(name="project_norm")(y)
        keeps = self.stride == 1 and x.shape[-1] == self.features
        return x + self.drop_path(name="drop_path")(y) if keeps else y


class FusedMBConv(nn.Module):
    """A full convolution to `hidden` channels, linear 1x1, plus the input as in `MBConv`.

    Without expansion there is one convolution alone, and its activation stays.

    Attributes: as `MBConv`; the kernel and the stride are those of the first convolution.
    """

    features: int
    kernel_size: int
    stride: int
    hidden: int
    activation: Activation
    conv: ModuleDef
    norm: ModuleDef
    drop_path: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, stride = self.kernel_size, self.stride
        if self.hidden == x.shape[-1]:
            y = self.conv(self.features, kernel, stride, name="conv")(x)
            y = self.activation(self.norm(name="norm")(y))
        else:
            y = self.conv(self.hidden, kernel, stride, name="expand_conv")(x)
            y = self.activation(self.norm(name="expand_norm")(y))
            y = self.conv(self.features, 1, name="project_conv")(y)
            y = self.norm(name="project_norm")(y)
        keeps = self.stride == 1 and x.shape[-1] == self.features
        return x + self.drop_path(name="drop_path")(y) if keeps else y


def makers(*, train: bool, dtype: np.dtype, bn_momentum: float, bn_epsilon: float,
           squeeze_activation: Activation, squeeze_gate: Activation = nn.sigmoid,
           same_padding: bool = False,
           depthwise_init: Literal["fan_out", "fan_in"] = "fan_out") -> dict[str, ModuleDef]:
    """Returns the layers of a network's blocks, with all bound that the blocks have in common.

    Args:
      train: whether norms take the batch's statistics.
      dtype: of the computation.
      bn_momentum, bn_epsilon: as in `BatchNorm`.
      squeeze_activation, squeeze_gate: as in `SqueezeExcite`.
      same_padding: TensorFlow's padding instead of torch's.
      depthwise_init: He's normal initialisation of the depthwise kernels. All others have it by
        "fan_out".

    Returns:
      "conv", "depthwise", "norm" and "squeeze_excite", the arguments of `MBConv`.
    """
    normal = he_normal("fan_out")
    conv = functools.partial(Conv, dtype=dtype, kernel_init=normal,
                             padding="SAME" if same_padding else None)
    return dict(
        conv=conv,
        depthwise=functools.partial(conv, kernel_init=he_normal(depthwise_init)),
        norm=functools.partial(BatchNorm, train=train, momentum=bn_momentum, epsilon=bn_epsilon),
        squeeze_excite=functools.partial(
            SqueezeExcite, activation=squeeze_activation, gate=squeeze_gate, dtype=dtype,
            kernel_init=normal, bias_init=nn.initializers.zeros))
