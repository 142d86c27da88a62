"""The textbook CNN."""

from golden_values import Logits, Training

LOGITS = {
    "simple_cnn": Logits(((32, 32, 3), (19, 27, 3)), dict(num_classes=10), "simple_cnn", "torch"),
}
TRAINING = {
    "simple_cnn": Training("simple_cnn", (19, 14, 3), dict(num_classes=10), "simple_cnn", "torch"),
}
