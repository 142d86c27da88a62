"""A model's variables: drawn, or their shapes alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def init_variables(module: nn.Module, key: jax.Array, input_shape: Sequence[int]) -> Any:
    """Returns what `module.init` draws for an (N, H, W, C) input: "params", mostly "batch_stats".

    Whoever asks for the shapes, for the values or for both shares one trace: half a second of
    Python for 50 layers.
    """
    try:
        hash(module)
    except TypeError:  # An attribute is a list or an array: traced anew each time.
        return _init.__wrapped__(module, key, tuple(input_shape))
    return _init(module, key, tuple(input_shape))


def variable_shapes(module: nn.Module, input_shape: Sequence[int]) -> Any:
    """Returns the shapes and dtypes of a module's variables, drawing none."""
    return jax.eval_shape(lambda: init_variables(module, jax.random.key(0), input_shape))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _init(module: nn.Module, key: jax.Array, input_shape: tuple[int, ...]) -> Any:
    return module.init(key, jnp.zeros(input_shape, jnp.float32), train=False)
