"""The namings of every family: one file a family, and the table of all."""

from __future__ import annotations

import dataclasses
import fnmatch
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
from cnnjax.types import UserError
from cnnjax.weights.naming import Naming, shapes_in_torch
from cnnjax.weights.namings import (
    alexnet,
    convnext,
    densenet,
    efficientnet,
    googlenet,
    inception_v3,
    lenet,
    mobilenet,
    resnet,
    resnet_v2,
    simple_cnn,
    squeezenet,
    vgg,
)

PyTree = Any
# The first of a family is the one that weights are saved in, with the exceptions of `to_save`.
NAMINGS: dict[type[nn.Module], tuple[Naming, ...]] = {
    ConvNeXt: (convnext.TORCHVISION, convnext.TIMM),
    DenseNet: (densenet.TORCHVISION, densenet.TIMM, densenet.PUBLISHED),
    GoogLeNet: (googlenet.TORCHVISION,),
    InceptionV3: (inception_v3.TORCHVISION, inception_v3.TIMM),
    LeNet5: (lenet.TORCH,),
    ResNet: (resnet.TORCHVISION, resnet.TIMM, resnet.CIFAR),
    SimpleCNN: (simple_cnn.TORCH,),
    AlexNet: (alexnet.TORCHVISION,),
    VGG: (vgg.TORCHVISION, vgg.TIMM),
    ResNetV2: (resnet_v2.TIMM,),
    SqueezeNet: (squeezenet.TORCHVISION,),
    MobileNetV2: (mobilenet.TORCHVISION_V2, mobilenet.TIMM_V2),
    MobileNetV3: (mobilenet.TORCHVISION_V3, mobilenet.TIMM_V3),
    EfficientNet: (efficientnet.TORCHVISION, efficientnet.TIMM, efficientnet.PYTORCH),
}


# Models that only another code base of their family has, by pattern, and whose they are.
_ELSEWHERE = (("tf_*", "timm"), ("efficientnet_lite*", "timm"),
              ("resnet*_cifar", "pytorch_resnet_cifar10"))


def has_names(name: str, module: nn.Module, variables: PyTree) -> bool:
    """Whether names and layouts in torch are known for a model's tensors, to save them in."""
    if type(module) not in NAMINGS:
        return False
    try:
        shapes_in_torch(to_save(name, module), variables)
    except UserError:  # LeNet-5's on a map that is not square.
        return False
    return True


def to_save(name: str, module: nn.Module) -> Naming:
    """Returns the naming that a model's weights are saved in: of the code base that has it."""
    return of(module, next((source for pattern, source in _ELSEWHERE
                            if fnmatch.fnmatch(name, pattern)), None))


def sources(family: type[nn.Module], source: str) -> list[str]:
    """Returns whose a family's tensors may be when they have the names of a source, it first."""
    namings = NAMINGS.get(family, ())
    same = [naming for naming in namings if naming.source == source]
    # "torchvision's published files" are torchvision's.
    return [source.partition("'s ")[0], *(naming.source for naming in namings if naming not in same
            and dataclasses.replace(naming, source=source) in same)]


def of(module: nn.Module, source: str | None = None) -> Naming:
    """Returns a family's naming by its source, or the first.

    Raises:
      KeyError: if the family has no naming (of that source).
    """
    for naming in NAMINGS[type(module)]:
        if source in (None, naming.source):
            return naming
    raise KeyError(f"{type(module).__name__} has no naming of {source}")
