"""How parameters are drawn at the start, as torch and the papers have it, and how they are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Initializer = Callable[..., jax.Array]
FLOAT32 = jnp.dtype("float32")


def _drawn(draw: Callable[..., jax.Array], key: jax.Array, shape: Sequence[int], dtype):
    """draw(key, shape, dtype) by way of a flat array.

    The values are the same, and the program that draws them compiles several times faster: JAX
    makes the counters of a random draw with as many axes as its shape has.
    """
    return draw(key, (math.prod(shape),), dtype).reshape(shape)


def he_normal(fan: Literal["fan_in", "fan_out"]) -> Initializer:
    """Returns the initialiser N(0, 2 / fan) of He et al., arXiv 1502.01852, eqs. 10 and 14.

    A kernel of (height, width, inputs, outputs) has a fan-in of height * width * inputs and a
    fan-out of height * width * outputs, as in torch; inputs are those of one group.
    """
    def init(key, shape, dtype=FLOAT32):
        size = math.prod(shape[:-1]) if fan == "fan_in" else math.prod(shape) // shape[-2]
        return _drawn(jax.random.normal, key, shape, dtype) * (2 / size) ** 0.5
    return init


def normal(std: float) -> Initializer:
    """Returns the initialiser N(0, std^2).

    It is also torch's `trunc_normal_(std=std)`, which cuts at ±2, absolute: many standard
    deviations away from anything that is drawn with the 0.01 to 0.1 that models use.
    """
    def init(key, shape, dtype=FLOAT32):
        return _drawn(jax.random.normal, key, shape, dtype) * std
    return init


def torch_uniform(key: jax.Array, shape: Sequence[int], dtype=FLOAT32) -> jax.Array:
    """The initialiser of torch.nn.Conv2d and torch.nn.Linear, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Torch writes it as kaiming_uniform with a = sqrt(5).
    """
    return torch_uniform_bias(math.prod(shape[:-1]))(key, shape, dtype)


def torch_uniform_bias(fan_in: int) -> Initializer:
    """Returns the initialiser of torch's biases, U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    def init(key, shape, dtype=FLOAT32):
        return (2 * _drawn(jax.random.uniform, key, shape, dtype) - 1) * fan_in ** -0.5
    return init


def caffe_xavier(key: jax.Array, shape: Sequence[int], dtype=FLOAT32) -> jax.Array:
    """Caffe's initialiser "xavier": U(-b, b) of variance 1 / fan_in."""
    return torch_uniform_bias(math.prod(shape[:-1]) / 3)(key, shape, dtype)


def parameter(layer: nn.Module, name: str, init: Initializer, shape: Sequence[int]) -> jax.Array:
    """Returns `layer.param(name, init, shape)`, float32.

    Flax traces the initialiser whenever a parameter is read, to compare shapes: a sixth of the time
    that it takes to trace a training step of ResNet-50. Shapes that agree need no trace.
    """
    if layer.has_variable("params", name):
        value = layer.get_variable("params", name)
        if np.shape(value) == tuple(shape):
            return value
    return layer.param(name, init, shape, FLOAT32)
