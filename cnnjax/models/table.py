"""The table of models. A new variant is a row; a new architecture is a file and its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

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
HE = (2015, "He et al., Deep residual learning for image recognition, arXiv 1512.03385")

_MNIST, _CIFAR, _IMAGENET = (28, 28, 1), (32, 32, 3), (224, 224, 3)

# 6 n + 2 layers: n blocks of two convolutions in each of three stages (section 4.2 of the paper).
_CIFAR_RESNET = dict(block="basic", widths=(16, 32, 64), stem="cifar", conv_init="fan_in")


def _cifar_resnet(depth: int, shortcut: str) -> Entry:
    sizes = dict(stage_sizes=((depth - 2) // 6,) * 3, shortcut=shortcut)
    return Entry(ResNet, {**_CIFAR_RESNET, **sizes}, _CIFAR, *HE)


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
}
