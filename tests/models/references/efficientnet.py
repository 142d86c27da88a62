"""Small EfficientNets in torch."""

from timm.models.efficientnet import _gen_efficientnet_lite
from torchvision.models.efficientnet import EfficientNet, _efficientnet_conf


def small(num_classes):
    stages, last = _efficientnet_conf("efficientnet_b0", width_mult=0.25, depth_mult=0.3)
    # torchvision's last convolution is four times as wide as the last stage, which here is not
    # the published 1280 * width.
    return EfficientNet(stages, 0.2, last_channel=320, num_classes=num_classes)


def small_lite(num_classes):
    return _gen_efficientnet_lite("tf_efficientnet_lite0", 0.25, 0.3, num_classes=num_classes,
                                  bn_eps=1e-3, pad_type="same")


MODELS = {"small": small, "small_lite": small_lite}
