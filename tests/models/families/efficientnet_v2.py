"""EfficientNetV2 with symmetric and with TensorFlow's padding."""

from golden_values import Fill, Logits, Training

_SIZES = ((64, 64, 3), (97, 75, 3))
_CLASSES = dict(num_classes=17)
_SMALL = dict(num_classes=7, width=0.25, depth=0.12)

LOGITS = {
    **{f"efficientnet_v2_{size}": Logits(_SIZES, _CLASSES, f"torchvision:efficientnet_v2_{size}",
                                         "torchvision", slow=True) for size in "sml"},
    "tf_efficientnetv2_s": Logits(_SIZES, _CLASSES, "timm:tf_efficientnetv2_s", "timm", slow=True),
    "small_efficientnetv2": Logits(_SIZES[1:], _SMALL, "small", "timm",
                                   model="tf_efficientnetv2_s"),
}
TRAINING = {
    "same": Training("tf_efficientnetv2_s", (45, 38, 3),
                     dict(_SMALL, dropout_rate=0.0, drop_path_rate=0.0), "small", "timm",
                     slow=True),
}
# The last norms of the blocks that have a shortcut, in torchvision's names and in timm's: of fused
# blocks of one convolution, of those of two, and of the others. Nearly off, for L has 73 of them.
_LAST = (r"features\.1\.\d+\.block\.0\.1\.weight|features\.[23]\.[1-9]\.block\.1\.1\.weight|"
         r"features\.\d+\.[1-9]\d*\.block\.3\.1\.weight|blocks\.0\.\d+\.bn1\.weight|"
         r"blocks\.[12]\.[1-9]\.bn2\.weight|blocks\.\d+\.[1-9]\d*\.bn3\.weight")
FILL = Fill(gain=3.3, ranges=((_LAST, 0.02, 0.2),))
