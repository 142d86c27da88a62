"""EfficientNets and their Lite forms, with symmetric and with TensorFlow's padding."""

from golden_values import Fill, Logits, Training

_SIZES = ((64, 64, 3), (97, 75, 3))
_CLASSES = dict(num_classes=17)

LOGITS = {
    **{f"efficientnet_b{i}": Logits(_SIZES, _CLASSES, f"torchvision:efficientnet_b{i}",
                                    "torchvision", slow=i > 0) for i in range(8)},
    **{name: Logits(_SIZES, _CLASSES, f"timm:{name}", "timm", slow=True) for name in (
        *(f"tf_efficientnet_b{i}" for i in range(8)), "efficientnet_lite0",
        "tf_efficientnet_lite0", "tf_efficientnet_lite3")},
}
_SMALL = dict(num_classes=7, width=0.25, depth=0.3, dropout_rate=0.0, drop_path_rate=0.0)
TRAINING = {
    "symmetric": Training("efficientnet_b0", (45, 37, 3), _SMALL, "small", "torchvision",
                          slow=True),
    "lite_same": Training("tf_efficientnet_lite0", (45, 38, 3), _SMALL, "small_lite", "timm",
                          slow=True),
}
# The last norms of the blocks after a stage's first, which have a shortcut, in torchvision's names
# and in timm's. Nearly off, for B7 has 48 of them.
_LAST = (r"features\.\d+\.[1-9]\d*\.block\.[23]\.1\.weight|"
         r"blocks\.\d+\.[1-9]\d*\.bn3\.weight")
FILL = Fill(gain=4.2, ranges=((_LAST, 0.02, 0.2),))
