"""The original AlexNet in torch, and both with few channels."""

import functools

from torch import nn

WIDTHS = (96, 256, 384, 384, 256)
NARROW = (8, 16, 24, 16, 16)


class AlexNet(nn.Module):
    """As the paper has it: groups, response normalisation, dropout of the outputs.

    torch divides the sum of squares by its size and the paper does not, hence alpha. Layers are
    numbered as torchvision numbers its own, which has no norms.
    """

    def __init__(self, num_classes, widths=WIDTHS, hidden=4096):
        super().__init__()
        a, b, c, d, e = widths
        self.norm = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
        self.features = nn.Sequential(
            nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(a, b, 5, 1, 2, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(b, c, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(c, d, 3, 1, 1, groups=2), nn.ReLU(),
            nn.Conv2d(d, e, 3, 1, 1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2))
        self.classifier = nn.Sequential(
            nn.Identity(), nn.Linear(36 * e, hidden), nn.Sequential(nn.ReLU(), nn.Dropout(0.5)),
            nn.Identity(), nn.Linear(hidden, hidden), nn.Sequential(nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(hidden, num_classes))
        self.pool = nn.AdaptiveAvgPool2d(6)

    def forward(self, x):
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in (1, 4):
                x = self.norm(x)
        return self.classifier(self.pool(x).flatten(1))


def narrow(num_classes):
    from torchvision.models import alexnet
    model = alexnet(num_classes=num_classes)
    inputs = 3
    for layer, outputs in zip((0, 3, 6, 8, 10), NARROW, strict=True):
        old = model.features[layer]
        model.features[layer] = nn.Conv2d(inputs, outputs, old.kernel_size, old.stride, old.padding)
        inputs = outputs
    model.classifier[1], model.classifier[4] = nn.Linear(36 * inputs, 32), nn.Linear(32, 32)
    model.classifier[6] = nn.Linear(32, num_classes)
    return model


MODELS = {
    "alexnet_original": AlexNet,
    "narrow_alexnet": narrow,
    "narrow_alexnet_original": functools.partial(AlexNet, widths=NARROW, hidden=32),
}
