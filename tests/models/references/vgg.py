"""torchvision's and timm's VGG with few channels."""

import functools

from torch import nn
from torchvision.models.vgg import VGG, make_layers


def narrow(counts, batch_norm, num_classes):
    config = []
    for width, count in zip((8, 16, 16, 24, 24), counts, strict=True):
        config += [*[width] * count, "M"]
    model = VGG(make_layers(config, batch_norm), num_classes)
    model.classifier[0], model.classifier[3] = nn.Linear(49 * 24, 32), nn.Linear(32, 32)
    model.classifier[6] = nn.Linear(32, num_classes)
    return model


def narrow_timm(num_classes):
    from timm.models.vgg import VGG

    model = VGG([8, "M", 16, "M", 16, 16, "M", 24, 24, "M", 24, 24, "M"], num_classes)
    model.pre_logits.fc1, model.pre_logits.fc2 = nn.Conv2d(24, 32, 7), nn.Conv2d(32, 32, 1)
    model.head.fc = nn.Linear(32, num_classes)
    return model


MODELS = {
    "narrow_vgg11": functools.partial(narrow, (1, 1, 2, 2, 2), False),
    "narrow_vgg13_bn": functools.partial(narrow, (2, 2, 2, 2, 2), True),
    "narrow_timm_vgg11": narrow_timm,
}
