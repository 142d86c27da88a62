"""What the golden files hold, shared by their maker and the tests. Needs neither torch nor JAX."""

from __future__ import annotations

import zlib

import numpy as np

# Logits in eval mode: model, its arguments, layout of the torch names, input sizes (H, W, C).
LOGITS = {
    "lenet5_full": (dict(num_classes=10, padding=2), "lenet", [(28, 28, 1), (29, 29, 1)]),
    "simple_cnn": (dict(num_classes=10), "simple_cnn", [(32, 32, 3), (19, 27, 3)]),
    "resnet18": (dict(num_classes=1000), "torchvision", [(64, 64, 3), (97, 75, 3)]),
    "resnet50": (dict(num_classes=1000), "torchvision", [(64, 64, 3), (97, 75, 3)]),
    "cifar_resnet18": (dict(num_classes=10), "torchvision", [(32, 32, 3), (21, 27, 3)]),
    "resnet20_cifar": (dict(num_classes=10), "cifar", [(32, 32, 3), (21, 27, 3)]),
}

# One training step in float64: name, model, its arguments, layout, input size.
TRAINING = {
    "simple_cnn": ("simple_cnn", dict(num_classes=10), "simple_cnn", (19, 14, 3)),
    "imagenet_stem": ("resnet18", dict(num_classes=7, stage_sizes=(1, 1, 1, 1)), "torchvision",
                      (45, 33, 3)),
    "padded_shortcut": ("resnet20_cifar", dict(num_classes=10, stage_sizes=(1, 1, 1)), "cifar",
                        (13, 10, 3)),
}
BATCH = 3
PROJECTIONS = 4


def generator(name: str) -> np.random.RandomState:
    """Returns a generator of its own for `name`. NumPy keeps RandomState's values for ever."""
    return np.random.RandomState(zlib.crc32(name.encode()))


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 values for the state-dict tensor `name`, the same on every machine.

    Weights are He-normal, so that signals keep their size; norms and their statistics are random
    too, since ones and zeros hide mistakes.
    """
    rng = generator(name)
    if len(shape) > 1:
        return rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("weight"):
        # Below one, or every residual block would double the signal.
        return rng.uniform(0.4, 1, shape).astype(np.float32)
    return rng.normal(0, 0.1, shape).astype(np.float32)


def images(size: tuple[int, int, int]) -> np.ndarray:
    """Returns (BATCH, H, W, C) float32: noise over a slope that differs between the images."""
    rng = generator(f"images {size}")
    noise = rng.normal(0, 1, (BATCH, *size))
    slope = rng.normal(0, 1, (BATCH, 1, 1, size[2])) * np.linspace(-1, 1, size[1])[:, None]
    return (noise + slope).astype(np.float32)


def labels(num_classes: int) -> np.ndarray:
    """Returns (BATCH,) integers."""
    return np.arange(BATCH) * 3 % num_classes


def fingerprint(name: str, array: np.ndarray) -> np.ndarray:
    """Returns the L2 norm of a float64 array and its products with PROJECTIONS random vectors.

    The vectors are standard normal, so the root mean square of the products of a difference
    estimates the difference's norm.
    """
    rng = generator(f"{name} projected")
    products = [np.vdot(rng.normal(size=array.shape), array) for _ in range(PROJECTIONS)]
    return np.array([np.linalg.norm(array), *products])
