"""Writes published_attribution.npz: Captum's maps of the published CIFAR-10 ResNet-20.

    python -m venv reference && reference/bin/pip install torch==2.13.0 captum==0.9.0 numpy
    reference/bin/python tests/analysis/make_published_golden.py FOLDER

FOLDER holds cifar10_resnet20/, with resnet20-12fca82f.th and test_1017.npz. The tests need that
folder too, but neither torch nor Captum.
"""

import pathlib
import sys

import numpy as np
import torch
from captum import attr
from published_case import CLASSES, IMAGES, MEAN, STD, STEPS
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions; where the map shrinks, the shortcut takes every other pixel."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = F.pad(x[:, :, ::self.stride, ::self.stride],
                  (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(x + y)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def main(folder):
    folder = pathlib.Path(folder) / "cifar10_resnet20"
    saved = torch.load(folder / "resnet20-12fca82f.th", map_location="cpu", weights_only=True)
    model = ResNet20()
    model.load_state_dict({k.removeprefix("module."): v for k, v in saved["state_dict"].items()})
    model = model.double().eval()
    images = np.load(folder / "test_1017.npz")["images"][list(IMAGES)]
    x = torch.from_numpy((images / 255 - MEAN) / STD).permute(0, 3, 1, 2)
    target = torch.tensor(CLASSES)

    def nhwc(values):
        return values.detach().permute(0, 2, 3, 1).numpy().astype(np.float32)

    integrated, delta = attr.IntegratedGradients(model).attribute(
        x, target=target, n_steps=STEPS, return_convergence_delta=True)
    found = {"logits": model(x).detach().numpy().astype(np.float32),
             "saliency": nhwc(attr.Saliency(model).attribute(x, target=target)),
             "integrated": nhwc(integrated), "delta": delta.numpy()}
    for i in (2, 3):
        cam = attr.LayerGradCam(model, getattr(model, f"layer{i}"))
        found[f"grad_cam_stage{i}"] = nhwc(
            cam.attribute(x, target=target, relu_attributions=True))
    np.savez_compressed(pathlib.Path(__file__).parent / "published_attribution.npz", **found)
    blank = model(torch.zeros_like(x))
    rise = (model(x) - blank)[range(len(target)), target].detach().numpy()
    print("classes", model(x).argmax(1).tolist(), "completeness", np.abs(delta.numpy() / rise))


if __name__ == "__main__":
    main(sys.argv[1])
