"""What the golden files are made of, shared by their maker and the tests. Needs neither torch nor
JAX."""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

BATCH = 3
PROJECTIONS = 4
Size = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Fill:
    """How a family's tensors are filled.

    Attributes:
      gain: variance of weights times their fan-in; 2 keeps the size of signals between ReLUs.
      quiet: pattern of the names of scales that end a residual branch. Drawn small, or a deep
        random network is chaotic: float32 and float64 then have nothing in common.
      ranges: (pattern of names, least, most) of tensors that are drawn uniformly instead.
    """

    gain: float = 2.0
    quiet: str = r"(?!)"
    ranges: tuple[tuple[str, float, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Logits:
    """Logits in eval mode that a model must reproduce.

    Attributes:
      sizes: (H, W, C) of the inputs, one of them odd where the model allows it.
      arguments: of `create_model`, num_classes among them.
      reference: "torchvision:NAME", "timm:NAME", or a name in MODELS of the family's file in
        references/. torch's builder is called with num_classes alone.
      naming: source of the names of its tensors.
      slow: whether the comparison is left to the slow tests.
      model: a name that `create_model` knows, if the case's own is none.
    """

    sizes: tuple[Size, ...]
    arguments: Mapping[str, Any]
    reference: str
    naming: str
    slow: bool = False
    model: str | None = None


@dataclasses.dataclass(frozen=True)
class Training:
    """One training step in float64 that a model must reproduce.

    Attributes:
      model: a name that `create_model` knows; a small variant of it by its arguments.
      size: (H, W, C) of the input.
      arguments: of `create_model`.
      reference: as in `Logits`.
      naming: as in `Logits`.
      aux_weight: of the losses of auxiliary heads.
      slow: whether the comparison is left to the slow tests.
    """

    model: str
    size: Size
    arguments: Mapping[str, Any]
    reference: str
    naming: str
    aux_weight: float = 0.0
    slow: bool = False


def generator(name: str) -> np.random.RandomState:
    """Returns a generator of its own for `name`. NumPy keeps RandomState's values for ever."""
    return np.random.RandomState(zlib.crc32(name.encode()))


def seeded(name: str, shape: tuple[int, ...], fill: Fill = Fill()) -> np.ndarray:
    """Returns float32 values for the state-dict tensor `name`, the same on every machine.

    Norms and their statistics are random too, since ones and zeros hide mistakes.
    """
    rng = generator(name)
    for pattern, low, high in fill.ranges:
        if re.search(pattern, name):
            return rng.uniform(low, high, shape).astype(np.float32)
    if len(shape) > 1:
        return rng.normal(0, (fill.gain / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("weight"):
        # Below one, or every residual block would double the signal.
        low, high = (0.1, 0.4) if re.search(fill.quiet, name) else (0.4, 1)
        return rng.uniform(low, high, shape).astype(np.float32)
    return rng.normal(0, 0.1, shape).astype(np.float32)


def images(size: Size) -> np.ndarray:
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
