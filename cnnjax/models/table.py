"""The table of models. A new variant is a row; a new architecture is a file and its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from cnnjax.models.efficientnet import EfficientNet
from cnnjax.models.lenet import LeNet5
from cnnjax.models.mobilenet_v2 import MobileNetV2
from cnnjax.models.mobilenet_v3 import MobileNetV3
from cnnjax.models.resnet import ResNet
from cnnjax.models.simple_cnn import SimpleCNN


@dataclasses.dataclass(frozen=True)
class Entry:
    """One named model.

    Attributes:
      module: the class that builds it.
      arguments: what makes this variant of it; the class has defaults for the rest.
      input_size: (height, width, channels) of the images that the published model takes.
      year: of publication, None for the textbook CNN, which has no single source.
      paper: where it was published, or None.
    """

    module: type[nn.Module]
    arguments: Mapping[str, Any]
    input_size: tuple[int, int, int]
    year: int | None
    paper: str | None


LECUN = (1998, "LeCun et al., Gradient-based learning applied to document recognition, "
               "Proc. IEEE 86(11), 1998")
HE = (2015, "He et al., Deep residual learning for image recognition, arXiv 1512.03385")
SANDLER = (2018, "Sandler et al., MobileNetV2: Inverted residuals and linear bottlenecks, "
                 "arXiv 1801.04381")
HOWARD = (2019, "Howard et al., Searching for MobileNetV3, arXiv 1905.02244")
TAN = (2019, "Tan & Le, EfficientNet: Rethinking model scaling for convolutional neural networks, "
             "arXiv 1905.11946")
LIU = (2020, "Liu, Higher accuracy on vision models with EfficientNet-Lite, TensorFlow blog, 2020")
TAN_V2 = (2021, "Tan & Le, EfficientNetV2: Smaller models and faster training, arXiv 2104.00298")

_MNIST, _CIFAR, _IMAGENET = (28, 28, 1), (32, 32, 3), (224, 224, 3)

# 6 n + 2 layers: n blocks of two convolutions in each of three stages (section 4.2 of the paper).
_CIFAR_RESNET = dict(block="basic", widths=(16, 32, 64), stem="cifar", conv_init="fan_in")


def _cifar_resnet(depth: int, shortcut: str) -> Entry:
    sizes = dict(stage_sizes=((depth - 2) // 6,) * 3, shortcut=shortcut)
    return Entry(ResNet, {**_CIFAR_RESNET, **sizes}, _CIFAR, *HE)


# (width, depth, resolution, dropout) of B0 to B7, and of Lite0 to Lite4, as published.
_EFFICIENTNET = ((1.0, 1.0, 224, 0.2), (1.0, 1.1, 240, 0.2), (1.1, 1.2, 260, 0.3),
                 (1.2, 1.4, 300, 0.3), (1.4, 1.8, 380, 0.4), (1.6, 2.2, 456, 0.4),
                 (1.8, 2.6, 528, 0.5), (2.0, 3.1, 600, 0.5))
_LITE = (*_EFFICIENTNET[:3], (1.2, 1.4, 280, 0.3), (1.4, 1.8, 300, 0.3))
# (training resolution in the paper, test resolution in torchvision, dropout)
_EFFICIENTNET_V2 = {"s": (300, 384, 0.2), "m": (384, 480, 0.3), "l": (384, 480, 0.4)}
_TENSORFLOW = dict(padding="same", bn_epsilon=1e-3, depthwise_init="fan_in")
_LITE_TRUNK = dict(trunk="lite", scale_ends=False, activation="relu6", depthwise_init="fan_in")


def _efficientnet(i: int, **arguments: Any) -> Entry:
    width, depth, size, dropout = _EFFICIENTNET[i]
    scale = dict(width=width, depth=depth, dropout_rate=dropout)
    return Entry(EfficientNet, {**scale, **arguments}, (size, size, 3), *TAN)


def _torchvision_efficientnet(i: int) -> Entry:
    entry = _efficientnet(i, **(dict(bn_epsilon=1e-3, bn_momentum=0.99) if i > 4 else {}))
    return dataclasses.replace(entry, input_size=(288, 288, 3)) if i == 2 else entry


def _lite(i: int, **arguments: Any) -> Entry:
    width, depth, size, dropout = _LITE[i]
    scale = dict(width=width, depth=depth, dropout_rate=dropout)
    return Entry(EfficientNet, {**_LITE_TRUNK, **scale, **arguments}, (size, size, 3), *LIU)


def _efficientnet_v2(size: str, tensorflow: bool = False) -> Entry:
    train, test, dropout = _EFFICIENTNET_V2[size]
    arguments = dict(trunk=f"v2_{size}", dropout_rate=dropout, bn_epsilon=1e-3)
    pixels = train if tensorflow else test
    return Entry(EfficientNet, {**arguments, **(_TENSORFLOW if tensorflow else {})},
                 (pixels, pixels, 3), *TAN_V2)


TABLE: dict[str, Entry] = {
    "lenet5": Entry(LeNet5, dict(connections="table"), _MNIST, *LECUN),
    "lenet5_full": Entry(LeNet5, dict(connections="full"), _MNIST, *LECUN),
    "simple_cnn": Entry(SimpleCNN, dict(), _CIFAR, None, None),
    "resnet18": Entry(
        ResNet, dict(block="basic", stage_sizes=(2, 2, 2, 2)), _IMAGENET, *HE),
    "resnet34": Entry(
        ResNet, dict(block="basic", stage_sizes=(3, 4, 6, 3)), _IMAGENET, *HE),
    "resnet50": Entry(
        ResNet, dict(block="bottleneck", stage_sizes=(3, 4, 6, 3)), _IMAGENET, *HE),
    "resnet101": Entry(
        ResNet, dict(block="bottleneck", stage_sizes=(3, 4, 23, 3)), _IMAGENET, *HE),
    "resnet152": Entry(
        ResNet, dict(block="bottleneck", stage_sizes=(3, 8, 36, 3)), _IMAGENET, *HE),
    "cifar_resnet18": Entry(
        ResNet, dict(block="basic", stage_sizes=(2, 2, 2, 2), stem="cifar"), _CIFAR, *HE),
    "resnet20_cifar": _cifar_resnet(20, "pad"),
    "resnet32_cifar": _cifar_resnet(32, "pad"),
    "resnet44_cifar": _cifar_resnet(44, "pad"),
    "resnet56_cifar": _cifar_resnet(56, "pad"),
    "resnet110_cifar": _cifar_resnet(110, "pad"),
    "plain20_cifar": _cifar_resnet(20, "none"),
    "plain32_cifar": _cifar_resnet(32, "none"),
    "plain44_cifar": _cifar_resnet(44, "none"),
    "plain56_cifar": _cifar_resnet(56, "none"),
    "plain110_cifar": _cifar_resnet(110, "none"),
    "mobilenet_v2": Entry(MobileNetV2, dict(), _IMAGENET, *SANDLER),
    "mobilenet_v3_small": Entry(MobileNetV3, dict(size="small"), _IMAGENET, *HOWARD),
    "mobilenet_v3_large": Entry(MobileNetV3, dict(size="large"), _IMAGENET, *HOWARD),
    **{f"efficientnet_b{i}": _torchvision_efficientnet(i) for i in range(8)},
    **{f"tf_efficientnet_b{i}": _efficientnet(i, **_TENSORFLOW) for i in range(8)},
    **{f"efficientnet_lite{i}": _lite(i) for i in range(5)},
    **{f"tf_efficientnet_lite{i}": _lite(i, **_TENSORFLOW) for i in range(5)},
    **{f"efficientnet_v2_{size}": _efficientnet_v2(size) for size in "sml"},
    **{f"efficientnetv2_{size}": _efficientnet_v2(size) for size in "sml"},
    **{f"tf_efficientnetv2_{size}": _efficientnet_v2(size, tensorflow=True) for size in "sml"},
}
