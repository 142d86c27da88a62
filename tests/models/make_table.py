"""Writes golden/torch_models.json.xz: sizes, multiply-adds and state dicts of torch's models.

    torchref/bin/python tests/models/make_table.py

in the environment that make_golden.py describes. Models are built and run on torch's "meta" device,
which has shapes and no values, so the largest takes neither memory nor time.
"""

from __future__ import annotations

import importlib
import json
import lzma

import golden_cases
import torch
from make_golden import torchvision
from torch import nn

LOCAL = {"lenet5": "lenet", "cifar_resnet18": "resnet"}
TORCHVISION = (
    "alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn",
    "googlenet", "googlenet_aux", "inception_v3", "inception_v3_aux", "resnet18", "resnet34",
    "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
    "wide_resnet50_2", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3",
    "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7",
    "efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l", "mobilenet_v2",
    "mobilenet_v3_small", "mobilenet_v3_large", "densenet121", "densenet169", "densenet201",
    "convnext_tiny", "convnext_small", "convnext_base", "convnext_large", "squeezenet1_0",
    "squeezenet1_1")
TIMM = (
    "vgg11", "vgg16", "vgg16_bn", "resnet50", "seresnet18", "seresnet34", "seresnet50",
    "seresnet101", "seresnet152", "resnetv2_50", "resnetv2_101", "resnetv2_152",
    "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100", "efficientnet_b0",
    "tf_efficientnet_b0", "tf_efficientnet_b1", "tf_efficientnet_b2",
    "tf_efficientnet_b3", "tf_efficientnet_b4", "tf_efficientnet_b5", "tf_efficientnet_b6",
    "tf_efficientnet_b7", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2",
    "efficientnet_lite3", "efficientnet_lite4", "tf_efficientnet_lite0", "tf_efficientnet_lite1",
    "tf_efficientnet_lite2", "tf_efficientnet_lite3", "tf_efficientnet_lite4",
    "tf_efficientnetv2_s", "tf_efficientnetv2_m", "tf_efficientnetv2_l")
# Sides of the images that torchvision's published weights were evaluated on, where not 224.
SIDES = {"lenet5": 28, "cifar_resnet18": 32, "inception_v3": 299, "efficientnet_b1": 240,
         "efficientnet_b2": 288, "efficientnet_b3": 300, "efficientnet_b4": 380,
         "efficientnet_b5": 456, "efficientnet_b6": 528, "efficientnet_b7": 600,
         "efficientnet_v2_s": 384, "efficientnet_v2_m": 480, "efficientnet_v2_l": 480}


def from_references(name):
    models = importlib.import_module(f"references.{LOCAL[name]}").MODELS
    return models[name](num_classes=10), SIDES[name], f"references/{LOCAL[name]}.py"


def from_torchvision(name):
    base = name.removesuffix("_aux")
    arguments = {}
    if base in ("googlenet", "inception_v3"):
        arguments = dict(aux_logits=name.endswith("_aux"), init_weights=False)
    model = getattr(torchvision.models, base)(weights=None, **arguments)
    return model, SIDES.get(base, 224), f"torchvision {torchvision.__version__.partition('+')[0]}"


def from_timm(name):
    import timm
    model = timm.create_model(name, pretrained=False)
    return model, model.pretrained_cfg["input_size"][-1], f"timm {timm.__version__}"


def multiply_adds(model, x):
    """Multiply-adds of the convolutions and dense layers of one evaluation."""
    counts = []

    def count(layer, inputs, output):
        each = layer.in_features if isinstance(layer, nn.Linear) else layer.weight[0].numel()
        counts.append(each * output.numel())

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    model.eval()(x)
    return sum(counts)


def row(build, name):
    """What the table has of one model."""
    with torch.device("meta"), torch.no_grad():
        model, side, source = build(name)
        macs = multiply_adds(model, torch.empty(1, 1 if name == "lenet5" else 3, side, side))
    return {
        "params": sum(p.numel() for p in model.parameters()),
        "bn_stats": sum(b.numel() for key, b in model.named_buffers() if "running" in key),
        "gmacs": round(macs / 1e9, 6), "resolution": side, "source": source,
        "state_dict": [[key, list(tensor.shape)] for key, tensor in model.state_dict().items()
                       if not key.endswith("num_batches_tracked")]}


if __name__ == "__main__":
    rows = {name: row(from_references, name) for name in LOCAL}
    rows |= {name: row(from_torchvision, name) for name in TORCHVISION}
    rows |= {f"timm_{name}": row(from_timm, name) for name in TIMM}
    text = json.dumps(rows, separators=(",", ":")).encode()
    (golden_cases.GOLDEN / "torch_models.json.xz").write_bytes(
        lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(rows)} models, {len(text)} bytes")
