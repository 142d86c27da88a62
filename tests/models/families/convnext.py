"""ConvNeXts."""

from golden_values import Fill, Logits, Training

# Scales of the branches as large as trained ones: those of a new model would hide all mistakes.
FILL = Fill(ranges=((r"layer_scale|gamma", 0.1, 0.4),))
_SIZES = ((64, 64, 3), (97, 75, 3))

LOGITS = {
    "convnext_tiny": Logits(_SIZES, dict(num_classes=17), "timm:convnext_tiny", "timm",
                            slow=True),
    "convnext_small": Logits(_SIZES, dict(num_classes=17), "torchvision:convnext_small",
                             "torchvision", slow=True),
    "convnext_base": Logits(_SIZES, dict(num_classes=17), "torchvision:convnext_base",
                            "torchvision", slow=True),
    "convnext_large": Logits(_SIZES, dict(num_classes=17), "torchvision:convnext_large",
                             "torchvision", slow=True),
}
TRAINING = {
    "convnext": Training("convnext_tiny", (45, 33, 3),
                         dict(num_classes=7, stage_sizes=(1, 2), widths=(24, 40),
                              drop_path_rate=0.0), "convnext",
                         "torchvision"),
}
