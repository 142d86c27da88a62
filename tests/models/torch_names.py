"""Parameters of the models under the names and in the layouts of their torch counterparts."""

from __future__ import annotations

import re
from collections.abc import Callable

import jax
import numpy as np

from cnnjax import trees

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
          "var": "running_var"}
_BLOCK = [(r"conv(\d)", r"conv\1"), (r"norm(\d)", r"bn\1")]
_RESNET = [(r"stem_conv", "conv1"), (r"stem_norm", "bn1"), *_BLOCK,
           (r"shortcut_conv", "downsample.0"), (r"shortcut_norm", "downsample.1")]
LAYOUTS = {
    "torchvision": [*_RESNET, (r"head", "fc")],
    "cifar": [*_RESNET, (r"head", "linear")],
    "simple_cnn": [*_BLOCK, (r"head", "fc")],
    "lenet": [(r"conv1", "features.0"), (r"conv2", "features.3"), (r"fc1", "classifier.1"),
              (r"fc2", "classifier.3"), (r"head", "classifier.5")],
}


def torch_name(layout: str, path: str) -> str:
    """Returns the torch name of "params/stage1_block1/conv1/kernel"."""
    _, *scope, layer, leaf = path.split("/")
    prefix = ""
    if scope:
        stage, block = re.fullmatch(r"stage(\d+)_block(\d+)", scope[0]).groups()
        prefix = f"layer{stage}.{int(block) - 1}."
    pattern, replacement = next(r for r in LAYOUTS[layout] if re.fullmatch(r[0], layer))
    return f"{prefix}{re.sub(pattern, replacement, layer)}.{LEAVES[leaf]}"


def to_torch(layout: str, path: str, array: np.ndarray) -> np.ndarray:
    """Returns a parameter or its gradient in torch's layout: OIHW, and outputs first."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2 and layout == "lenet" and "/fc1/" in path:
        # Torch flattens channels first: 16 maps of 5x5.
        return array.reshape(5, 5, 16, -1).transpose(3, 2, 0, 1).reshape(array.shape[::-1])
    return array.T


def from_torch(layout: str, path: str, array: np.ndarray) -> np.ndarray:
    """Inverse of `to_torch`."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2 and layout == "lenet" and "/fc1/" in path:
        return array.reshape(-1, 16, 5, 5).transpose(2, 3, 1, 0).reshape(array.shape[::-1])
    return array.T


def load(layout: str, shapes, tensor: Callable[[str, tuple[int, ...]], np.ndarray]):
    """Returns variables shaped as `shapes`, each leaf being tensor(torch name, torch shape)."""
    leaves = []
    for path, leaf in trees.named_leaves(shapes).items():
        shape = to_torch(layout, path, np.broadcast_to(np.float32(0), leaf.shape)).shape
        leaves.append(from_torch(layout, path, tensor(torch_name(layout, path), shape)))
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)
