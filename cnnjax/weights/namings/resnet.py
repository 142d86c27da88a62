"""Names of the ResNets in torchvision and timm, which agree, and of the CIFAR ResNets.

torchvision has no squeeze-excite ResNets: theirs are timm's.
"""

import dataclasses

from cnnjax.weights.naming import ONE_BY_ONE, Naming

_TRUNK = (
    (r"stem_conv", "conv1"),
    (r"stem_norm", "bn1"),
    (r"stage(\d+)_block(\d+)/conv(\d)", "layer{1}.{2-1}.conv{3}"),
    (r"stage(\d+)_block(\d+)/norm(\d)", "layer{1}.{2-1}.bn{3}"),
    (r"stage(\d+)_block(\d+)/shortcut_conv", "layer{1}.{2-1}.downsample.0"),
    (r"stage(\d+)_block(\d+)/shortcut_norm", "layer{1}.{2-1}.downsample.1"),
    (r"stage(\d+)_block(\d+)/se/reduce", "layer{1}.{2-1}.se.fc1"),
    (r"stage(\d+)_block(\d+)/se/expand", "layer{1}.{2-1}.se.fc2"),
)
_LAYOUTS = ((r".*/se/.*", ONE_BY_ONE),)

TORCHVISION = Naming("torchvision", (*_TRUNK, (r"head", "fc")), _LAYOUTS)
TIMM = dataclasses.replace(TORCHVISION, source="timm")
# github.com/akamaster/pytorch_resnet_cifar10, of which the published CIFAR-10 weights are.
CIFAR = Naming("pytorch_resnet_cifar10", (*_TRUNK, (r"head", "linear")))
