"""LeNet-5 with full connections."""

from golden_values import Logits

LOGITS = {
    "lenet5_full": Logits(((28, 28, 1), (29, 29, 1)), dict(num_classes=10, padding=2), "lenet5",
                          "torch"),
}
