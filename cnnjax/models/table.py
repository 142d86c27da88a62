"""The table of models. A new variant is a row; a new architecture is a file and its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from cnnjax.models.convnext import ConvNeXt
from cnnjax.models.densenet import DenseNet
from cnnjax.models.googlenet import GoogLeNet
from cnnjax.models.inception_v3 import InceptionV3
from cnnjax.models.lenet import LeNet5
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
SZEGEDY = (2014, "Szegedy et al., Going deeper with convolutions, arXiv 1409.4842")
SZEGEDY_V3 = (2015, "Szegedy et al., Rethinking the Inception architecture for computer vision, "
                    "arXiv 1512.00567")
HE = (2015, "He et al., Deep residual learning for image recognition, arXiv 1512.03385")
HUANG = (2016, "Huang et al., Densely connected convolutional networks, arXiv 1608.06993")
LIU = (2022, "Liu et al., A ConvNet for the 2020s, arXiv 2201.03545")

_MNIST, _CIFAR, _IMAGENET = (28, 28, 1), (32, 32, 3), (224, 224, 3)

# 6 n + 2 layers: n blocks of two convolutions in each of three stages (section 4.2 of the paper).
_CIFAR_RESNET = dict(block="basic", widths=(16, 32, 64), stem="cifar", conv_init="fan_in")


def _cifar_resnet(depth: int, shortcut: str) -> Entry:
    sizes = dict(stage_sizes=((depth - 2) // 6,) * 3, shortcut=shortcut)
    return Entry(ResNet, {**_CIFAR_RESNET, **sizes}, _CIFAR, *HE)


def _convnext(stage_sizes: tuple[int, ...], width: int, drop_path_rate: float) -> Entry:
    return Entry(ConvNeXt, dict(
        stage_sizes=stage_sizes, widths=(width, 2 * width, 4 * width, 8 * width),
        drop_path_rate=drop_path_rate), _IMAGENET, *LIU)


TABLE: dict[str, Entry] = {
    "lenet5": Entry(LeNet5, dict(connections="table"), _MNIST, *LECUN),
    "lenet5_full": Entry(LeNet5, dict(connections="full"), _MNIST, *LECUN),
    "simple_cnn": Entry(SimpleCNN, dict(), _CIFAR, None, None),
    "googlenet": Entry(GoogLeNet, dict(), _IMAGENET, *SZEGEDY),
    "googlenet_original": Entry(
        GoogLeNet, dict(norm="local_response", large_kernel=5, last_pool=3, aux_pool="strided",
                        dropout_rate=0.4), _IMAGENET, *SZEGEDY),
    "inception_v3": Entry(InceptionV3, dict(), (299, 299, 3), *SZEGEDY_V3),
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
}
