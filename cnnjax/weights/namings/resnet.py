"""Names of the ResNets in torchvision and timm, which agree, and of the CIFAR ResNets."""

import dataclasses

from cnnjax.weights.naming import Naming

_TRUNK = (
    (r"stem_conv", "conv1"),
    (r"stem_norm", "bn1"),
    (r"stage(\d+)_block(\d+)/conv(\d)", "layer{1}.{2-1}.conv{3}"),
    (r"stage(\d+)_block(\d+)/norm(\d)", "layer{1}.{2-1}.bn{3}"),
    (r"stage(\d+)_block(\d+)/shortcut_conv", "layer{1}.{2-1}.downsample.0"),
    (r"stage(\d+)_block(\d+)/shortcut_norm", "layer{1}.{2-1}.downsample.1"),
)

TORCHVISION = Naming("torchvision", (*_TRUNK, (r"head", "fc")))
TIMM = dataclasses.replace(TORCHVISION, source="timm")
# github.com/akamaster/pytorch_resnet_cifar10, of which the published CIFAR-10 weights are.
CIFAR = Naming("pytorch_resnet_cifar10", (*_TRUNK, (r"head", "linear")))
