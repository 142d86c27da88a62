"""A model's variables: drawn, or their shapes alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnums=(0, 2))
def init_variables(module: nn.Module, key: jax.Array, input_shape: tuple[int, ...]) -> Any:
    """Returns freshly drawn {"params": …, "batch_stats": …} for an (N, H, W, C) input.

    Jitted, so that whoever asks for the shapes, for the values or for both shares one trace: half a
    second of Python for 50 layers.
    """
    return module.init(key, jnp.zeros(input_shape, jnp.float32), train=False)


def variable_shapes(module: nn.Module, input_shape: Sequence[int]) -> Any:
    """Returns the shapes and dtypes of a module's variables, computing nothing."""
    return init_variables.eval_shape(module, jax.random.key(0), tuple(input_shape))
