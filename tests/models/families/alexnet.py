"""AlexNet in one tower and in two, as they are and with a tenth of their channels."""

from golden_values import Logits, Training

_SIZES = ((224, 224, 3), (97, 131, 3))
_NARROW = dict(widths=(8, 16, 24, 16, 16), hidden=32)

LOGITS = {
    "alexnet": Logits(_SIZES, dict(num_classes=17), "torchvision:alexnet", "torchvision",
                      slow=True),
    "alexnet_original": Logits(_SIZES, dict(num_classes=17), "alexnet_original", "torchvision",
                               slow=True),
    "narrow": Logits(_SIZES, dict(num_classes=17, **_NARROW), "narrow", "torchvision",
                     model="alexnet"),
    "narrow_original": Logits(_SIZES, dict(num_classes=17, **_NARROW), "narrow_original",
                              "torchvision", model="alexnet_original"),
}
TRAINING = {
    "narrow": Training("alexnet", (97, 131, 3), dict(num_classes=7, dropout_rate=0.0, **_NARROW),
                       "narrow", "torchvision"),
    "narrow_original": Training(
        "alexnet_original", (97, 131, 3), dict(num_classes=7, dropout_rate=0.0, **_NARROW),
        "narrow_original", "torchvision"),
}
