"""VGG, with and without batch norm, and with a tenth of its channels."""

from golden_values import Logits, Training

_SIZES = ((224, 224, 3), (97, 235, 3))
_NARROW = dict(widths=(8, 16, 16, 24, 24), hidden=32)

LOGITS = {
    **{name: Logits(((64, 64, 3), (97, 75, 3)), dict(num_classes=17), f"torchvision:{name}",
                    "torchvision", slow=True)
       for name in ("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn",
                    "vgg19_bn")},
    "narrow_vgg11": Logits(_SIZES, dict(num_classes=17, **_NARROW), "narrow_vgg11", "torchvision",
                           model="vgg11"),
    "narrow_timm_vgg11": Logits(_SIZES, dict(num_classes=17, **_NARROW), "narrow_timm_vgg11",
                                "timm", model="vgg11"),
    "narrow_vgg13_bn": Logits(_SIZES, dict(num_classes=17, **_NARROW), "narrow_vgg13_bn",
                              "torchvision", model="vgg13_bn"),
}
TRAINING = {
    "narrow_vgg13_bn": Training("vgg13_bn", (65, 97, 3),
                                dict(num_classes=7, dropout_rate=0.0, **_NARROW),
                                "narrow_vgg13_bn", "torchvision"),
}
