"""The table of models. A new variant is a row; a new architecture is a file and its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from cnnjax.models.alexnet import AlexNet
from cnnjax.models.convnext import ConvNeXt
from cnnjax.models.densenet import DenseNet
from cnnjax.models.efficientnet import EfficientNet
from cnnjax.models.googlenet import GoogLeNet
from cnnjax.models.inception_v3 import InceptionV3
from cnnjax.models.lenet import LeNet5
from cnnjax.models.mobilenet_v2 import MobileNetV2
from cnnjax.models.mobilenet_v3 import MobileNetV3
from cnnjax.models.resnet import ResNet
from cnnjax.models.resnet_v2 import ResNetV2
from cnnjax.models.simple_cnn import SimpleCNN
from cnnjax.models.squeezenet import SqueezeNet
from cnnjax.models.vgg import VGG


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
KRIZHEVSKY = (2012, "Krizhevsky et al., ImageNet classification with deep convolutional neural "
                    "networks, NIPS 2012")
ONE_TOWER = (2014, "Krizhevsky, One weird trick for parallelizing convolutional neural networks, "
                   "arXiv 1404.5997")
SIMONYAN = (2014, "Simonyan & Zisserman, Very deep convolutional networks for large-scale image "
                  "recognition, arXiv 1409.1556")
SZEGEDY = (2014, "Szegedy et al., Going deeper with convolutions, arXiv 1409.4842")
SZEGEDY_V3 = (2015, "Szegedy et al., Rethinking the Inception architecture for computer vision, "
                    "arXiv 1512.00567")
HE = (2015, "He et al., Deep residual learning for image recognition, arXiv 1512.03385")
IDENTITY = (2016, "He et al., Identity mappings in deep residual networks, arXiv 1603.05027")
IANDOLA = (2016, "Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and "
                 "<0.5MB model size, arXiv 1602.07360")
ZAGORUYKO = (2016, "Zagoruyko & Komodakis, Wide residual networks, arXiv 1605.07146")
XIE = (2016, "Xie et al., Aggregated residual transformations for deep neural networks, "
             "arXiv 1611.05431")
HUANG = (2016, "Huang et al., Densely connected convolutional networks, arXiv 1608.06993")
HU = (2017, "Hu et al., Squeeze-and-excitation networks, arXiv 1709.01507")
LIU = (2022, "Liu et al., A ConvNet for the 2020s, arXiv 2201.03545")
SANDLER = (2018, "Sandler et al., MobileNetV2: Inverted residuals and linear bottlenecks, "
                 "arXiv 1801.04381")
HOWARD = (2019, "Howard et al., Searching for MobileNetV3, arXiv 1905.02244")
TAN = (2019, "Tan & Le, EfficientNet: Rethinking model scaling for convolutional neural networks, "
             "arXiv 1905.11946")
LITE = (2020, "Liu, Higher accuracy on vision models with EfficientNet-Lite, TensorFlow blog, 2020")
TAN_V2 = (2021, "Tan & Le, EfficientNetV2: Smaller models and faster training, arXiv 2104.00298")

_MNIST, _CIFAR, _IMAGENET = (28, 28, 1), (32, 32, 3), (224, 224, 3)

# By depth: configurations A, B, D and E of Table 1 of the paper.
_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

# By depth: Table 1 of the paper.
_RESNET = {
    18: dict(block="basic", stage_sizes=(2, 2, 2, 2)),
    34: dict(block="basic", stage_sizes=(3, 4, 6, 3)),
    50: dict(block="bottleneck", stage_sizes=(3, 4, 6, 3)),
    101: dict(block="bottleneck", stage_sizes=(3, 4, 23, 3)),
    152: dict(block="bottleneck", stage_sizes=(3, 8, 36, 3)),
}
# timm, whose names these are, starts them as their shortcuts.
_SE = dict(se_reduction=16, zero_init_residual=True)

# 6 n + 2 layers: n blocks of two convolutions in each of three stages (section 4.2 of the paper).
_CIFAR_RESNET = dict(block="basic", widths=(16, 32, 64), stem="cifar", conv_init="fan_in")


def _vgg(depth: int, **more: Any) -> Entry:
    return Entry(VGG, dict(stage_sizes=_VGG[depth], **more), _IMAGENET, *SIMONYAN)


def _cifar_resnet(depth: int, shortcut: str) -> Entry:
    sizes = dict(stage_sizes=((depth - 2) // 6,) * 3, shortcut=shortcut)
    return Entry(ResNet, {**_CIFAR_RESNET, **sizes}, _CIFAR, *HE)


def _convnext(stage_sizes: tuple[int, ...], width: int, drop_path_rate: float) -> Entry:
    return Entry(ConvNeXt, dict(
        stage_sizes=stage_sizes, widths=(width, 2 * width, 4 * width, 8 * width),
        drop_path_rate=drop_path_rate), _IMAGENET, *LIU)


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
    return Entry(EfficientNet, {**_LITE_TRUNK, **scale, **arguments}, (size, size, 3), *LITE)


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
    "alexnet_original": Entry(AlexNet, dict(
        widths=(96, 256, 384, 384, 256), towers=2, response_norm=True, initializer="paper",
        drop="outputs"), _IMAGENET, *KRIZHEVSKY),
    "alexnet": Entry(AlexNet, dict(), _IMAGENET, *ONE_TOWER),
    "vgg11": _vgg(11),
    "vgg13": _vgg(13),
    "vgg16": _vgg(16),
    "vgg19": _vgg(19),
    "vgg11_bn": _vgg(11, batch_norm=True),
    "vgg13_bn": _vgg(13, batch_norm=True),
    "vgg16_bn": _vgg(16, batch_norm=True),
    "vgg19_bn": _vgg(19, batch_norm=True),
    "googlenet": Entry(GoogLeNet, dict(), _IMAGENET, *SZEGEDY),
    "googlenet_original": Entry(
        GoogLeNet, dict(norm="local_response", large_kernel=5, last_pool=3, aux_pool="strided",
                        dropout_rate=0.4), _IMAGENET, *SZEGEDY),
    "inception_v3": Entry(InceptionV3, dict(), (299, 299, 3), *SZEGEDY_V3),
    "resnet18": Entry(ResNet, _RESNET[18], _IMAGENET, *HE),
    "resnet34": Entry(ResNet, _RESNET[34], _IMAGENET, *HE),
    "resnet50": Entry(ResNet, _RESNET[50], _IMAGENET, *HE),
    "resnet101": Entry(ResNet, _RESNET[101], _IMAGENET, *HE),
    "resnet152": Entry(ResNet, _RESNET[152], _IMAGENET, *HE),
    "wide_resnet50_2": Entry(
        ResNet, dict(**_RESNET[50], width_per_group=128), _IMAGENET, *ZAGORUYKO),
    "wide_resnet101_2": Entry(
        ResNet, dict(**_RESNET[101], width_per_group=128), _IMAGENET, *ZAGORUYKO),
    "resnext50_32x4d": Entry(
        ResNet, dict(**_RESNET[50], groups=32, width_per_group=4), _IMAGENET, *XIE),
    "resnext101_32x8d": Entry(
        ResNet, dict(**_RESNET[101], groups=32, width_per_group=8), _IMAGENET, *XIE),
    "resnext101_64x4d": Entry(
        ResNet, dict(**_RESNET[101], groups=64, width_per_group=4), _IMAGENET, *XIE),
    "seresnet18": Entry(ResNet, dict(**_RESNET[18], **_SE), _IMAGENET, *HU),
    "seresnet34": Entry(ResNet, dict(**_RESNET[34], **_SE), _IMAGENET, *HU),
    "seresnet50": Entry(ResNet, dict(**_RESNET[50], **_SE), _IMAGENET, *HU),
    "seresnet101": Entry(ResNet, dict(**_RESNET[101], **_SE), _IMAGENET, *HU),
    "seresnet152": Entry(ResNet, dict(**_RESNET[152], **_SE), _IMAGENET, *HU),
    "seresnext50_32x4d": Entry(
        ResNet, dict(**_RESNET[50], **_SE, groups=32, width_per_group=4), _IMAGENET, *HU),
    "resnetv2_50": Entry(ResNetV2, dict(stage_sizes=(3, 4, 6, 3)), _IMAGENET, *IDENTITY),
    "resnetv2_101": Entry(ResNetV2, dict(stage_sizes=(3, 4, 23, 3)), _IMAGENET, *IDENTITY),
    "resnetv2_152": Entry(ResNetV2, dict(stage_sizes=(3, 8, 36, 3)), _IMAGENET, *IDENTITY),
    "squeezenet1_0": Entry(SqueezeNet, dict(
        stage_sizes=(3, 4, 1), stem_width=96, stem_kernel=7), _IMAGENET, *IANDOLA),
    "squeezenet1_1": Entry(SqueezeNet, dict(stage_sizes=(2, 2, 4)), _IMAGENET, *IANDOLA),
    "cifar_resnet18": Entry(ResNet, dict(**_RESNET[18], stem="cifar"), _CIFAR, *HE),
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
    "densenet121": Entry(DenseNet, dict(stage_sizes=(6, 12, 24, 16)), _IMAGENET, *HUANG),
    "densenet161": Entry(
        DenseNet, dict(stage_sizes=(6, 12, 36, 24), growth_rate=48, stem_width=96), _IMAGENET,
        *HUANG),
    "densenet169": Entry(DenseNet, dict(stage_sizes=(6, 12, 32, 32)), _IMAGENET, *HUANG),
    "densenet201": Entry(DenseNet, dict(stage_sizes=(6, 12, 48, 32)), _IMAGENET, *HUANG),
    "convnext_tiny": _convnext((3, 3, 9, 3), 96, 0.1),
    "convnext_small": _convnext((3, 3, 27, 3), 96, 0.4),
    "convnext_base": _convnext((3, 3, 27, 3), 128, 0.5),
    "convnext_large": _convnext((3, 3, 27, 3), 192, 0.5),
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
