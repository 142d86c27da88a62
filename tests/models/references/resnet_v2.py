"""timm's pre-activation ResNet with few blocks and channels."""

from timm.layers import BatchNormAct2d, create_conv2d
from timm.models.resnetv2 import ResNetV2


def small(num_classes):
    return ResNetV2([2, 1], channels=(64, 128), num_classes=num_classes, stem_chs=16,
                    conv_layer=create_conv2d, norm_layer=BatchNormAct2d)


MODELS = {"small_resnetv2": small}
