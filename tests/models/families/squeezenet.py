"""SqueezeNet."""

from golden_values import Logits, Training

_SIZES = ((64, 64, 3), (97, 75, 3))

LOGITS = {
    "squeezenet1_0": Logits(_SIZES, dict(num_classes=17), "torchvision:squeezenet1_0",
                            "torchvision", slow=True),
    "squeezenet1_1": Logits(_SIZES, dict(num_classes=17), "torchvision:squeezenet1_1",
                            "torchvision"),
}
TRAINING = {
    "squeezenet1_1": Training("squeezenet1_1", (37, 45, 3), dict(num_classes=7, dropout_rate=0.0),
                              "torchvision:squeezenet1_1", "torchvision", slow=True),
}
