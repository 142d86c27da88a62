"""One side of `benchmarks.train_step`: the same training step in PyTorch. Prints a line of JSON.

    some/environment/bin/python benchmarks/train_step_torch.py resnet18:32:128 --mode=compile

It runs alone in an environment with torch and torchvision, and imports nothing of cnnjax.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time

import torch
from torch import nn
from torchvision_anywhere import torchvision


def lenet5(classes: int) -> nn.Module:
    """LeNet-5 with every connection of its second convolution, as usually built."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, classes))


def build(name: str, classes: int) -> nn.Module:
    """The model that cnnjax has under the same name."""
    if name == "lenet5_full":
        return lenet5(classes)
    if name == "cifar_resnet18":
        model = torchvision.models.resnet18(num_classes=classes)
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
        return model
    extra = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    return getattr(torchvision.models, name)(weights=None, num_classes=classes, **extra)


def make_step(case: str, classes: int, mode: str, device: str):
    """Returns a function without arguments that makes one step and returns its loss."""
    name, size, batch = case.split(":")
    torch.manual_seed(0)
    # What PyTorch's own advice on speed turns on for a GPU.
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    model = build(name, classes).train().to(device, memory_format=torch.channels_last)
    channels = next(p for p in model.parameters() if p.ndim == 4).shape[1]
    images = torch.randn(int(batch), channels, int(size), int(size)).to(
        device, memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (int(batch),)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    run = torch.compile(model) if "compile" in mode else model

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled="bf16" in mode):
            loss = nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def main() -> None:
    """Times the first step (compiling included), then some more.

    On CPU one by one; on a GPU ten at a time, as a training loop leaves them to it.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help="model:pixels:batch size")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--mode", choices=["eager", "bf16", "compile", "compile_bf16"],
                        default="eager")
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    step = make_step(arguments.case, arguments.classes, arguments.mode, device)
    seconds, group = [], 10 if device == "cuda" else 1
    for number in range(arguments.steps + 3):
        start = time.perf_counter()
        for _ in range(group if number else 1):
            loss = step()
        loss = loss.item()  # Waits for the device.
        seconds.append((time.perf_counter() - start) / (group if number else 1))
    peak_mb = (torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else
               resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps({
        "ms": statistics.median(seconds[3:]) * 1e3, "first_s": seconds[0], "peak_mb": peak_mb,
        "loss": loss, "version": f"torch {torch.__version__}",
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}))


if __name__ == "__main__":
    main()
