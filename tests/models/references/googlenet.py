"""The paper's GoogLeNet in torch, its modules named as torchvision names those of its own, and a
shallow one of torchvision's."""

import functools

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.googlenet import GoogLeNet as TorchvisionGoogLeNet
from torchvision.models.googlenet import Inception as TorchvisionInception

# Output channels of the branches, in the order of Table 1 of arXiv 1409.4842.
TABLE_1 = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}


class Unit(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)

    def forward(self, x):
        return F.relu(self.conv(x))


class Inception(nn.Module):
    def __init__(self, inputs, one, before3, three, before5, five, after_pool):
        super().__init__()
        self.branch1 = Unit(inputs, one, 1)
        self.branch2 = nn.Sequential(Unit(inputs, before3, 1), Unit(before3, three, 3))
        self.branch3 = nn.Sequential(Unit(inputs, before5, 1), Unit(before5, five, 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), Unit(inputs, after_pool, 1))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Auxiliary(nn.Module):
    def __init__(self, inputs, num_classes):
        super().__init__()
        self.conv = Unit(inputs, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x):
        x = self.conv(F.avg_pool2d(x, 5, 3)).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


class GoogLeNet(nn.Module):
    def __init__(self, num_classes, auxiliary=False):
        super().__init__()
        self.conv1 = Unit(3, 64, 7, 2)
        self.conv2 = Unit(64, 64, 1)
        self.conv3 = Unit(64, 192, 3)
        inputs = 192
        for name, row in TABLE_1.items():
            self.add_module(f"inception{name}", Inception(inputs, *row))
            inputs = row[0] + row[2] + row[4] + row[5]
        if auxiliary:
            self.aux1 = Auxiliary(512, num_classes)
            self.aux2 = Auxiliary(528, num_classes)
        self.fc = nn.Linear(1024, num_classes)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.lrn = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)

    def forward(self, x):
        x = self.lrn(self.pool(self.conv1(x)))
        x = self.pool(self.lrn(self.conv3(self.conv2(x))))
        x = self.pool(self.inception3b(self.inception3a(x)))
        x = first = self.inception4a(x)
        x = second = self.inception4d(self.inception4c(self.inception4b(x)))
        x = self.pool(self.inception4e(x))
        x = self.fc(self.inception5b(self.inception5a(x)).mean((2, 3)))
        return (x, self.aux1(first), self.aux2(second)) if self.training else x


class OneBlockAStage(TorchvisionGoogLeNet):
    """torchvision's with inception (3a), (4a) and (5a), and the first auxiliary head."""

    def __init__(self, num_classes):
        super().__init__(num_classes, init_weights=False)
        self.inception3b = self.inception4b = self.inception4c = nn.Identity()
        self.inception4d = self.inception4e = self.inception5b = nn.Identity()
        self.inception4a = TorchvisionInception(256, *TABLE_1["4a"])
        self.inception5a = TorchvisionInception(512, *TABLE_1["5a"])
        self.fc = nn.Linear(832, num_classes)
        self.aux2 = None

    def forward(self, x):
        outputs = super().forward(x)
        return (outputs[0], outputs[2]) if self.training else outputs


MODELS = {"googlenet_original": GoogLeNet,
          "original_with_auxiliary_heads": functools.partial(GoogLeNet, auxiliary=True),
          "one_block_a_stage": OneBlockAStage}
