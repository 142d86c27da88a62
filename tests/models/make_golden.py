"""Writes golden/*.npz: what torch computes with the weights that `golden_cases.seeded` gives.

    python -m venv torchref && torchref/bin/pip install torch==2.13.0 numpy
    torchref/bin/pip install --no-deps torchvision==0.28.0 pillow
    torchref/bin/python tests/models/make_golden.py

The tests need neither torch nor torchvision: they make the weights again and compare.
"""

from __future__ import annotations

import pathlib

import golden_cases as cases
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

try:
    import torchvision
except RuntimeError:
    # torchvision's compiled part needs CUDA. Without it, it registers shapes for two operations
    # that must be declared first; no classifier uses them.
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

from torchvision.models.resnet import BasicBlock, ResNet


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2))
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(),
            nn.Linear(84, 10))

    def forward(self, x):
        return self.classifier(self.features(x))


class SimpleCNN(nn.Module):
    def __init__(self):
        super().__init__()
        for i, (inputs, outputs) in enumerate([(3, 32), (32, 64), (64, 128)], 1):
            self.add_module(f"conv{i}", nn.Conv2d(inputs, outputs, 3, padding=1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
        self.fc = nn.Linear(128, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.bn3(self.conv3(x)))
        return self.fc(x.mean((2, 3)))


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
    def __init__(self, blocks):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        inputs = 16
        for i, width in enumerate((16, 32, 64), 1):
            stage = []
            for j in range(blocks):
                stage.append(PaddedBlock(inputs, width, 2 if i > 1 and j == 0 else 1))
                inputs = width
            self.add_module(f"layer{i}", nn.Sequential(*stage))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def cifar_resnet18():
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return model


MODELS = {
    "lenet5_full": LeNet5,
    "simple_cnn": SimpleCNN,
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
    "cifar_resnet18": cifar_resnet18,
    "resnet20_cifar": lambda: CifarResNet(3),
    "imagenet_stem": lambda: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=7),
    "padded_shortcut": lambda: CifarResNet(1),
}


def build(name):
    """The model in float64, its tensors filled by name."""
    model = MODELS[name]().double()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                tensor.copy_(torch.from_numpy(cases.seeded(key, tuple(tensor.shape))))
    return model


def nchw(size):
    return torch.from_numpy(cases.images(size)).double().permute(0, 3, 1, 2)


def logits():
    found = {}
    for name, (_, _, sizes) in cases.LOGITS.items():
        model = build(name).eval()
        for size in sizes:
            with torch.no_grad():
                found[f"{name} {size[0]}x{size[1]}"] = model(nchw(size)).numpy().astype(np.float32)
    return found


def training():
    found = {}
    for name, (_, arguments, _, size) in cases.TRAINING.items():
        model = build(name).train()
        target = torch.from_numpy(cases.labels(arguments["num_classes"]))
        loss = F.cross_entropy(model(nchw(size)), target)
        loss.backward()
        found[f"{name} loss"] = loss.detach().numpy()
        tensors = {key: p.grad for key, p in model.named_parameters()}
        tensors |= {key: b for key, b in model.named_buffers() if "running" in key}
        for key, tensor in tensors.items():
            found[f"{name} {key}"] = cases.fingerprint(key, tensor.numpy())
    return found


if __name__ == "__main__":
    golden = pathlib.Path(__file__).parent / "golden"
    np.savez_compressed(golden / "logits.npz", **logits())
    np.savez_compressed(golden / "training.npz", **training())
