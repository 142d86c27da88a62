"""A small EfficientNetV2 in torch."""

from timm.models.efficientnet import _gen_efficientnetv2_s


def small(num_classes):
    return _gen_efficientnetv2_s("tf_efficientnetv2_s", 0.25, 0.12, num_classes=num_classes,
                                 bn_eps=1e-3, pad_type="same")


MODELS = {"small": small}
