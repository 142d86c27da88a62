"""What others published about the models of the table: accuracies with their source, and ideas.

A figure belongs to one model, one recipe and one way to test it, and is given with all three: the
figures of famous comparison tables are mostly those of competition entries, which are ensembles.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Figure:
    """One published accuracy, of ImageNet's validation images with one crop each unless said.

    Attributes:
      top1, top5: in percent, None where the source doesn't give it.
      what: which network, recipe and test it is the accuracy of, and where it is published.
    """

    top1: float | None
    top5: float | None
    what: str


# Of torchvision's first weights of each model, as torchvision 0.28 gives them: top-1, top-5.
_V1 = {
    "alexnet": (56.52, 79.07), "vgg11": (69.02, 88.63), "vgg13": (69.93, 89.25),
    "vgg16": (71.59, 90.38), "vgg19": (72.38, 90.88), "vgg11_bn": (70.37, 89.81),
    "vgg13_bn": (71.59, 90.37), "vgg16_bn": (73.36, 91.52), "vgg19_bn": (74.22, 91.84),
    "googlenet": (69.78, 89.53), "inception_v3": (77.29, 93.45), "resnet18": (69.76, 89.08),
    "resnet34": (73.31, 91.42), "resnet50": (76.13, 92.86), "resnet101": (77.37, 93.55),
    "resnet152": (78.31, 94.05), "wide_resnet50_2": (78.47, 94.09),
    "wide_resnet101_2": (78.85, 94.28), "resnext50_32x4d": (77.62, 93.7),
    "resnext101_32x8d": (79.31, 94.53), "resnext101_64x4d": (83.25, 96.45),
    "squeezenet1_0": (58.09, 80.42), "squeezenet1_1": (58.18, 80.62), "densenet121": (74.43, 91.97),
    "densenet161": (77.14, 93.56), "densenet169": (75.6, 92.81), "densenet201": (76.9, 93.37),
    "convnext_tiny": (82.52, 96.15), "convnext_small": (83.62, 96.65),
    "convnext_base": (84.06, 96.87), "convnext_large": (84.41, 96.98),
    "mobilenet_v2": (71.88, 90.29), "mobilenet_v3_small": (67.67, 87.4),
    "mobilenet_v3_large": (74.04, 91.34), "efficientnet_b0": (77.69, 93.53),
    "efficientnet_b1": (78.64, 94.19), "efficientnet_b2": (80.61, 95.31),
    "efficientnet_b3": (82.01, 96.05), "efficientnet_b4": (83.38, 96.59),
    "efficientnet_b5": (83.44, 96.63), "efficientnet_b6": (84.01, 96.92),
    "efficientnet_b7": (84.12, 96.91), "efficientnet_v2_s": (84.23, 96.88),
    "efficientnet_v2_m": (85.11, 97.16), "efficientnet_v2_l": (85.81, 97.79),
}
_A1 = "recipe A1 of arXiv 2110.00476"
_EFFICIENTNET = "arXiv 1905.11946 table 2"
_CIFAR = "CIFAR-10, arXiv 1512.03385 table 6"


def _v1(name: str) -> Figure:
    return Figure(*_V1[name], "torchvision's weights, V1")


FIGURES: Mapping[str, tuple[Figure, ...]] = {
    "lenet5": (Figure(99.05, None, "MNIST, LeCun et al. 1998: 0.95 % error"),),
    **{name: (_v1(name),) for name in _V1},
    "alexnet_original": (
        Figure(None, 83.6, "an ensemble of five, ILSVRC-2012 entry: 16.4 % error"),),
    "vgg16": (
        _v1("vgg16"),
        Figure(None, 92.7, "an ensemble of VGG nets, ILSVRC-2014 entry: 7.3 % error")),
    "googlenet_original": (
        Figure(None, 93.3, "an ensemble of several, ILSVRC-2014 entry: 6.7 % error"),),
    "resnet18": (
        _v1("resnet18"),
        Figure(71.5, None, _A1)),
    "resnet50": (
        _v1("resnet50"),
        Figure(80.86, 95.43, "torchvision's weights, V2"),
        Figure(80.4, None, _A1)),
    "resnet152": (
        _v1("resnet152"),
        Figure(None, 96.4, "an ensemble of depths, ILSVRC-2015 entry: 3.6 % error (tables "
                           "give it to ResNet-50)")),
    **{f"tf_efficientnet_b{i}": (Figure(top1, top5, _EFFICIENTNET),)
       for i, (top1, top5) in enumerate([
           (77.1, 93.3), (79.1, 94.4), (80.1, 94.9), (81.6, 95.7), (82.9, 96.4), (83.6, 96.7),
           (84.0, 96.8)])},
    "tf_efficientnet_b7": (
        Figure(84.3, 97.0, _EFFICIENTNET),
        Figure(None, 97.1, "the paper's first version: 2.9 % error (tables give it to B0)")),
    "tf_efficientnet_lite0": (Figure(75.1, None, "its authors' weights"),),
    **{f"resnet{depth}_cifar": (Figure(top1, None, _CIFAR),) for depth, top1 in [
        (20, 91.25), (32, 92.49), (44, 92.83), (56, 93.03), (110, 93.57)]},
}

# The first pattern that matches a model's name.
IDEAS = {
    "lenet5*": "convolutions with shared weights, trained end to end",
    "simple_cnn": "[convolution, norm, ReLU, pool] blocks and global average pooling",
    "alexnet*": "ReLU, dropout, overlapping pooling, training on GPUs",
    "vgg*_bn": "VGG with batch norm",
    "vgg*": "small 3x3 kernels only, and more of them",
    "googlenet*": "Inception: several kernel sizes side by side, 1x1 bottlenecks",
    "inception*": "factorised kernels: 1x7 and 7x1 for 7x7",
    "plain*": "a ResNet without its shortcuts, to compare with",
    "resnext*": "grouped 3x3 convolutions: many narrow paths",
    "wide_resnet*": "wider instead of deeper",
    "resnetv2*": "norm and ReLU before the convolution: a clean shortcut",
    "se*resne*": "squeeze-excite gates on channels",
    "legacy_se*": "squeeze-excite gates on channels",
    "*resnet*": "identity shortcuts: layers learn a residual",
    "densenet*": "every layer sees all the earlier ones' maps",
    "squeezenet*": "fire modules: squeeze with 1x1, expand with 1x1 and 3x3",
    "mobilenet_v2*": "inverted residuals of depthwise convolutions",
    "mobilenet_v3*": "inverted residuals found by search, with gates and hard swish",
    "*efficientnet_v2*": "fused blocks first, scaled for training speed",
    "*efficientnetv2*": "fused blocks first, scaled for training speed",
    "*efficientnet_lite*": "EfficientNet without gates, with ReLU6, for quantised inference",
    "*efficientnet*": "depth, width and resolution scaled together",
    "convnext*": "a ResNet with a transformer's choices: 7x7 depthwise, LayerNorm, GELU",
}


def idea(name: str) -> str:
    """Returns in a few words what a model brought, or "" for one that is not known here."""
    return next((words for pattern, words in IDEAS.items() if fnmatch.fnmatch(name, pattern)), "")
