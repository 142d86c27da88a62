"""Parallel branches whose maps are concatenated, as the Inception networks are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.models.layers import AvgPool, MaxPool, ModuleDef
from cnnjax.ops.geometry import Padding, Pair


class Unit(NamedTuple):
    """A convolution, norm and ReLU. With a stride it is not padded; otherwise it keeps the size."""

    features: int
    kernel: int | Pair = 1
    stride: int = 1


class Pool(NamedTuple):
    """A 3x3 pooling, padded likewise. Averages count padding as zeros."""

    kind: Literal["max", "avg"]
    stride: int = 1


class Fork(NamedTuple):
    """Units side by side, whose maps are concatenated."""

    units: tuple[Unit, ...]


Branch = tuple[Unit | Pool | Fork, ...]


def conv_unit(x: jax.Array, features: int, kernel: int | Pair = 1, stride: int = 1,
              padding: Padding | None = None, *, name: str, conv: ModuleDef,
              norm: ModuleDef | None) -> jax.Array:
    """A convolution, a norm and a ReLU, within a module's `__call__`.

    Args:
      x: (B, H, W, C).
      features, kernel, stride, padding: of the convolution.
      name: of the convolution. It has "conv" in it, where the norm's name has "norm".
      conv, norm: makers of the layers, with dtype and train mode bound; norm may be None.
    """
    x = conv(features, kernel, stride, padding, name=name)(x)
    if norm is not None:
        x = norm(name=name.replace("conv", "norm"))(x)
    return nn.relu(x)


class Branches(nn.Module):
    """Sends a map through several branches and concatenates what they give.

    Layers are named branch1_conv1, branch1_norm1, …, branch2_pool, and branch3_conv2a,
    branch3_conv2b, … in a fork.

    Attributes:
      branches: the steps of each.
      unit: `conv_unit` with its makers bound.
    """

    branches: tuple[Branch, ...]
    unit: Callable[..., jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([_branch(x, steps, f"branch{i}", self.unit)
                                for i, steps in enumerate(self.branches, 1)], -1)


def _branch(x: jax.Array, steps: Branch, name: str, unit: Callable[..., jax.Array]) -> jax.Array:
    """One branch; convolutions are numbered in their order, pools are not."""
    number = 0
    for step in steps:
        if isinstance(step, Pool):
            layer = MaxPool if step.kind == "max" else AvgPool
            x = layer(3, step.stride, 0 if step.stride > 1 else 1, name=f"{name}_pool")(x)
            continue
        number += 1
        units = step.units if isinstance(step, Fork) else (step,)
        letters = "abcdefgh" if isinstance(step, Fork) else ("",)
        x = jnp.concatenate([
            unit(x, *each, padding=0 if each.stride > 1 else None,
                 name=f"{name}_conv{number}{letter}")
            for each, letter in zip(units, letters, strict=False)], -1)
    return x
