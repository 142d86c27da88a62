"""AlexNet in one tower and in two, as they are and with a tenth of their channels."""

from golden_values import Logits, Training

_SIZES = ((224, 224, 3), (97, 131, 3))
_NARROW = dict(widths=(8, 16, 24, 16, 16), hidden=32)
_TRAINED = dict(num_classes=7, dropout_rate=0.0, **_NARROW)


def _logits(model, arguments, reference, slow=False):
    return Logits(_SIZES, dict(num_classes=17, **arguments), reference, "torchvision", slow, model)


LOGITS = {
    "alexnet": _logits("alexnet", {}, "torchvision:alexnet", slow=True),
    "alexnet_original": _logits("alexnet_original", {}, "alexnet_original", slow=True),
    "narrow_alexnet": _logits("alexnet", _NARROW, "narrow_alexnet"),
    "narrow_alexnet_original": _logits("alexnet_original", _NARROW, "narrow_alexnet_original"),
}
TRAINING = {
    "narrow_alexnet": Training("alexnet", (97, 131, 3), _TRAINED, "narrow_alexnet", "torchvision"),
    "narrow_alexnet_original": Training("alexnet_original", (97, 131, 3), _TRAINED,
                                        "narrow_alexnet_original", "torchvision"),
}
