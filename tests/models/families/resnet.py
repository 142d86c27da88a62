"""ResNets for ImageNet and for CIFAR, with groups, more width and gates."""

from golden_values import Fill, Logits, Training

_IMAGENET = ((64, 64, 3), (97, 75, 3))
_SMALL = dict(stage_sizes=(2, 1, 1, 1), widths=(64, 32, 32, 32), se_reduction=16)
_CIFAR = ((32, 32, 3), (21, 27, 3))


def _torchvision(name, slow=True):
    return {name: Logits(_IMAGENET, dict(num_classes=17), f"torchvision:{name}", "torchvision",
                         slow)}


def _timm(name):
    return {name: Logits(_IMAGENET, dict(num_classes=17), f"timm:{name}", "timm", slow=True)}


LOGITS = {
    **_torchvision("resnet18", slow=False),
    **_torchvision("resnet34"),
    **_torchvision("resnet50"),
    **_torchvision("resnet101"),
    **_torchvision("resnet152"),
    **_torchvision("wide_resnet50_2"),
    **_torchvision("resnext50_32x4d"),
    **_torchvision("resnext101_32x8d"),
    **_timm("seresnet18"),
    **_timm("seresnet50"),
    "cifar_resnet18": Logits(_CIFAR, dict(num_classes=10), "cifar_resnet18", "torchvision"),
    "resnet20_cifar": Logits(_CIFAR, dict(num_classes=10), "resnet20_cifar",
                             "pytorch_resnet_cifar10"),
    "small_seresnext": Logits(_CIFAR, dict(num_classes=17, **_SMALL), "small_seresnext", "timm",
                              model="resnext50_32x4d"),
}
TRAINING = {
    "imagenet_stem": Training("resnet18", (45, 33, 3),
                              dict(num_classes=7, stage_sizes=(1, 1, 1, 1)), "imagenet_stem",
                              "torchvision"),
    "padded_shortcut": Training("resnet20_cifar", (13, 10, 3),
                                dict(num_classes=10, stage_sizes=(1, 1, 1)), "padded_shortcut",
                                "pytorch_resnet_cifar10"),
    "small_seresnext": Training("resnext50_32x4d", (25, 33, 3), dict(num_classes=7, **_SMALL),
                                "small_seresnext", "timm", slow=True),
}
FILL = Fill(quiet=r"\.bn3\.weight")
