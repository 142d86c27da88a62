"""Writes golden/*.pth with torch.save, and golden/values.npz with what is in them.

    torchref/bin/python tests/weights/make_torch_files.py

with the environment of ../models/make_golden.py. The tests read the files without torch.
"""

import argparse
import collections
import pathlib

import numpy as np
import torch

FOLDER = pathlib.Path(__file__).parent / "golden"


def tensors():
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    return {
        "float32": torch.randn(3, 2, 2, 2), "float64": torch.randn(3).double(),
        "float16": torch.randn(5).half(), "bfloat16": torch.randn(7).bfloat16(),
        "int64": torch.tensor([1, -2, 3]), "uint8": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False]), "scalar": torch.tensor(2.5),
        # Views of one storage: transposed, strided, with an offset, last channel first.
        "shared": base, "transposed": base.t(), "strided": base[1::2, 1:],
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }


if __name__ == "__main__":
    found = tensors()
    np.savez(FOLDER / "values.npz", **{name: (t.float() if t.dtype == torch.bfloat16 else t)
                                       .detach().numpy() for name, t in found.items()})
    wrapped = {
        "epoch": 3, "best_acc1": torch.tensor(71.5), "arch": "resnet18",
        "args": argparse.Namespace(lr=0.1), "score": np.float64(1.5),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{}]},
        "state_dict": collections.OrderedDict((f"module.{name}", t) for name, t in found.items()),
    }
    for kind, new in (("zip", True), ("legacy", False)):
        torch.save(found, FOLDER / f"plain_{kind}.pth", _use_new_zipfile_serialization=new)
        torch.save(wrapped, FOLDER / f"wrapped_{kind}.pth", _use_new_zipfile_serialization=new)
    module = torch.nn.Sequential(collections.OrderedDict(
        conv=torch.nn.Conv2d(3, 4, 3), bn=torch.nn.BatchNorm2d(4)))
    torch.save(module.state_dict(), FOLDER / "module.pth")
    # What must be refused: a whole module, and a program.
    torch.save(module, FOLDER / "whole_module.pth")
    torch.jit.trace(module.eval(), torch.zeros(1, 3, 8, 8)).save(FOLDER / "torchscript.pth")
