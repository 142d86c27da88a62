"""ResNets for ImageNet and for CIFAR."""

from golden_values import Logits, Training

_IMAGENET = ((64, 64, 3), (97, 75, 3))
_CIFAR = ((32, 32, 3), (21, 27, 3))

LOGITS = {
    "resnet18": Logits(_IMAGENET, dict(num_classes=17), "torchvision:resnet18", "torchvision"),
    "resnet50": Logits(_IMAGENET, dict(num_classes=17), "torchvision:resnet50", "torchvision"),
    "cifar_resnet18": Logits(_CIFAR, dict(num_classes=10), "cifar_resnet18", "torchvision"),
    "resnet20_cifar": Logits(_CIFAR, dict(num_classes=10), "resnet20_cifar",
                             "pytorch_resnet_cifar10"),
}
TRAINING = {
    "imagenet_stem": Training("resnet18", (45, 33, 3),
                              dict(num_classes=7, stage_sizes=(1, 1, 1, 1)), "imagenet_stem",
                              "torchvision"),
    "padded_shortcut": Training("resnet20_cifar", (13, 10, 3),
                                dict(num_classes=10, stage_sizes=(1, 1, 1)), "padded_shortcut",
                                "pytorch_resnet_cifar10"),
}
