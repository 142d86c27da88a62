"""torchvision's VGG with few channels."""

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


MODELS = {
    "narrow_vgg11": functools.partial(narrow, (1, 1, 2, 2, 2), False),
    "narrow_vgg13_bn": functools.partial(narrow, (2, 2, 2, 2, 2), True),
}
