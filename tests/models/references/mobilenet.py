"""Small MobileNets in torch."""

from timm.models.efficientnet import _gen_mobilenet_v2
from torchvision.models.mobilenetv3 import MobileNetV3, _mobilenet_v3_conf


def v2(num_classes):
    return _gen_mobilenet_v2("mobilenetv2_100", 0.25, 0.3, num_classes=num_classes)


def v3(num_classes):
    return MobileNetV3(*_mobilenet_v3_conf("mobilenet_v3_small", width_mult=0.25), num_classes)


MODELS = {"v2": v2, "v3": v3}
