"""ResNets in torch that torchvision does not name."""

import functools

import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet


class PaddedBlock(nn.Module):
    """Option A of the paper: subsampled input, zeros for the new channels."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.new, self.stride = (outputs - inputs) // 2, stride

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = x[:, :, ::self.stride, ::self.stride]
        return F.relu(y + F.pad(x, (0, 0, 0, 0, self.new, self.new)))


class CifarResNet(nn.Module):
    def __init__(self, blocks, num_classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        inputs = 16
        for i, width in enumerate((16, 32, 64), 1):
            stage = []
            for j in range(blocks):
                stage.append(PaddedBlock(inputs, width, 2 if i > 1 and j == 0 else 1))
                inputs = width
            self.add_module(f"layer{i}", nn.Sequential(*stage))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def cifar_resnet18(num_classes):
    model = torchvision.models.resnet18(num_classes=num_classes)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return model


def small_seresnext(num_classes):
    from timm.models import resnet
    return resnet.ResNet(resnet.Bottleneck, (2, 1, 1, 1), num_classes, channels=(64, 32, 32, 32),
                         cardinality=32, base_width=4, block_args=dict(attn_layer="se"))


MODELS = {
    "small_seresnext": small_seresnext,
    "cifar_resnet18": cifar_resnet18,
    "resnet20_cifar": functools.partial(CifarResNet, 3),
    "imagenet_stem": functools.partial(ResNet, BasicBlock, [1, 1, 1, 1]),
    "padded_shortcut": functools.partial(CifarResNet, 1),
}
