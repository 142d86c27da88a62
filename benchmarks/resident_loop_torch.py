"""One side of `benchmarks.resident_loop`: a PyTorch loop. Prints a line of JSON.

    some/environment/bin/python benchmarks/resident_loop_torch.py fashion_mnist_wide --mode=compile

It runs alone in an environment with torch and torchvision, and imports nothing of cnnjax.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch import nn
from torchvision_anywhere import torchvision

# Blocks a stage, widths, batch size: those of experiments/resnet_cifar.py.
PRESETS = {"fashion_mnist": ((1, 1, 1), (32, 64, 128), 128),
           "fashion_mnist_wide": ((2, 2, 2), (128, 256, 512), 256)}


def build(sizes: tuple[int, ...], widths: tuple[int, ...]) -> nn.Module:
    """The preset's net, of torchvision's basic blocks."""
    width = widths[0]
    layers = [nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for stage, (blocks, features) in enumerate(zip(sizes, widths, strict=True)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            shortcut = None
            if stride > 1 or width != features:
                shortcut = nn.Sequential(nn.Conv2d(width, features, 1, stride, bias=False),
                                         nn.BatchNorm2d(features))
            layers.append(torchvision.models.resnet.BasicBlock(width, features, stride, shortcut))
            width = features
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def main() -> None:
    """Times the second half of the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset", choices=list(PRESETS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    arguments = parser.parse_args()
    sizes, widths, batch = PRESETS[arguments.preset]
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = dict(memory_format=torch.channels_last)
    images = torch.randn(arguments.images, 1, 28, 28).to(device, **layout)
    labels = (torch.arange(arguments.images) % 10).to(device)
    model = build(sizes, widths).train().to(device, **layout)
    run = torch.compile(model) if arguments.mode == "compile" else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True,
                                weight_decay=5e-4)

    def step() -> torch.Tensor:
        index = torch.randint(0, len(images), (batch,), device=device)
        flip = torch.rand(batch, 1, 1, 1, device=device) < 0.5
        x = torch.where(flip, images[index].flip(3), images[index]).contiguous(**layout)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = nn.functional.cross_entropy(run(x), labels[index], label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        return loss

    half = arguments.steps // 2
    for _ in range(2):  # The first half compiles.
        start = time.perf_counter()
        for _ in range(half):
            loss = step()
        loss.item()  # Waits for the device.
    print(json.dumps({
        "steps_per_second": half / (time.perf_counter() - start),
        "version": f"torch {torch.__version__}",
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}))


if __name__ == "__main__":
    main()
