"""Pre-activation ResNets. No norm ends a branch, so the last kernels are drawn small instead."""

from golden_values import Fill, Logits, Training

_SIZES = ((64, 64, 3), (97, 75, 3))
_SMALL = dict(stage_sizes=(2, 1), widths=(16, 32))

LOGITS = {
    "resnetv2_50": Logits(_SIZES, dict(num_classes=17), "timm:resnetv2_50", "timm", slow=True),
    "resnetv2_101": Logits(_SIZES, dict(num_classes=17), "timm:resnetv2_101", "timm", slow=True),
    "small_resnetv2": Logits(((32, 32, 3), (45, 33, 3)), dict(num_classes=17, **_SMALL),
                             "small_resnetv2", "timm", model="resnetv2_50"),
}
TRAINING = {
    "small_resnetv2": Training("resnetv2_50", (25, 33, 3), dict(num_classes=7, **_SMALL),
                               "small_resnetv2", "timm"),
}
FILL = Fill(ranges=((r"conv3\.weight", -0.05, 0.05),))
