"""Writes golden/<family>.npz: what torch computes with weights that `golden_values.seeded` gives.

    python -m venv torchref && torchref/bin/pip install torch==2.13.0 numpy
    torchref/bin/pip install --no-deps torchvision==0.28.0 timm==1.0.31 \
        pillow safetensors pyyaml packaging tqdm && torchref/bin/pip install huggingface_hub
    torchref/bin/python tests/models/make_golden.py [FAMILY …]

The tests need none of them: they make the weights again and compare.
"""

from __future__ import annotations

import importlib
import sys

import numpy as np
import torch
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

import golden_cases
import golden_values as values


def build(family, case):
    """The torch model of a case in float64, its tensors filled by name."""
    source, _, name = case.reference.rpartition(":")
    arguments = {"num_classes": case.arguments["num_classes"]}
    if source == "torchvision":
        model = getattr(torchvision.models, name)(weights=None, **arguments)
    elif source == "timm":
        import timm
        model = timm.create_model(name, pretrained=False, **arguments)
    else:
        model = importlib.import_module(f"references.{family}").MODELS[name](**arguments)
    fill = golden_cases.fill(family)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                tensor.copy_(torch.from_numpy(values.seeded(key, tuple(tensor.shape), fill)))
    return model.double()


def without_dropout(model):
    """Turns off everything random in training."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if type(module).__name__ in ("StochasticDepth", "DropPath"):
            module.p = module.drop_prob = 0.0
        if getattr(module, "drop_rate", 0):
            module.drop_rate = 0.0
    return model


def nchw(size):
    return torch.from_numpy(values.images(size)).double().permute(0, 3, 1, 2)


def logits(family, name, case):
    """Logits in float64, and how far torch's own float32 is from them."""
    model, found = build(family, case).eval(), {}
    with torch.no_grad():
        for size in case.sizes:
            exact = model(nchw(size)).numpy()
            rounded = model.float()(nchw(size).float()).double().numpy()
            model.double()
            where = f"{name} {size[0]}x{size[1]}"
            found[where] = exact.astype(np.float32)
            found[f"{where} noise"] = np.abs(rounded - exact).max()
    return found


def training(family, name, case):
    """The loss, and fingerprints of every gradient and of the updated statistics."""
    model = without_dropout(build(family, case)).train()
    target = torch.from_numpy(values.labels(case.arguments["num_classes"]))
    outputs = model(nchw(case.size))
    first, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = F.cross_entropy(first, target)
    for head in auxiliary:
        loss = loss + case.aux_weight * F.cross_entropy(head, target)
    loss.backward()
    tensors = {key: p.grad for key, p in model.named_parameters()}
    tensors |= {key: b for key, b in model.named_buffers() if "running" in key}
    return {f"{name} loss": loss.detach().numpy(),
            **{f"{name} {key}": values.fingerprint(key, tensor.numpy())
               for key, tensor in tensors.items()}}


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    for wanted in sys.argv[1:] or golden_cases.FAMILIES:
        arrays = {}
        for maker, kind in ((logits, "LOGITS"), (training, "TRAINING")):
            for family, name, case in golden_cases.cases(kind):
                if family == wanted:
                    arrays |= maker(family, name, case)
                    print(family, name, flush=True)
        np.savez_compressed(golden_cases.GOLDEN / f"{wanted}.npz", **arrays)
