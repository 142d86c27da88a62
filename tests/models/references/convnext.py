"""A small ConvNeXt of torchvision."""

from torchvision.models.convnext import CNBlockConfig, ConvNeXt


def convnext(num_classes):
    return ConvNeXt([CNBlockConfig(24, 40, 1), CNBlockConfig(40, None, 2)],
                    stochastic_depth_prob=0.1, num_classes=num_classes)


MODELS = {"convnext": convnext}
