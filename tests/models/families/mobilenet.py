"""MobileNetV2 and MobileNetV3."""

from golden_values import Fill, Logits, Training

_SIZES = ((64, 64, 3), (97, 75, 3))

LOGITS = {name: Logits(_SIZES, dict(num_classes=17), f"torchvision:{name}", "torchvision",
                       slow=name != "mobilenet_v3_small")
          for name in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")}
_SMALL = dict(num_classes=7, width=0.25, dropout_rate=0.0)
TRAINING = {
    "v2": Training("mobilenet_v2", (45, 37, 3), dict(_SMALL, repeats=(1, 1, 1, 2, 1, 1, 1)), "v2",
                   "timm"),
    "v3": Training("mobilenet_v3_small", (45, 37, 3), _SMALL, "v3", "torchvision",
                   slow=True),
}
FILL = Fill(gain=3.6)
