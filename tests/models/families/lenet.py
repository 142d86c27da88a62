"""LeNet-5 with full connections."""

from golden_values import Logits, Training

LOGITS = {
    "lenet5_full": Logits(((28, 28, 1), (29, 29, 1)), dict(num_classes=10, padding=2), "lenet5",
                          "torch"),
}
TRAINING = {
    "full": Training("lenet5_full", (28, 28, 1), dict(num_classes=10), "lenet5", "torch"),
}
