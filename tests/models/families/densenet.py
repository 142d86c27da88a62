"""DenseNets."""

from golden_values import Logits, Training

_SIZES = ((64, 64, 3), (97, 75, 3))

LOGITS = {
    "densenet121": Logits(_SIZES, dict(num_classes=17), "torchvision:densenet121", "torchvision",
                          slow=True),
    "densenet161": Logits(_SIZES, dict(num_classes=17), "torchvision:densenet161", "torchvision",
                          slow=True),
    "densenet169": Logits(_SIZES, dict(num_classes=17), "timm:densenet169", "timm", slow=True),
    "densenet201": Logits(_SIZES, dict(num_classes=17), "torchvision:densenet201", "torchvision",
                          slow=True),
}
TRAINING = {
    "densenet": Training("densenet121", (45, 33, 3),
                         dict(num_classes=7, stage_sizes=(2, 3), growth_rate=12, stem_width=20),
                         "densenet", "torchvision"),
}
