"""The state of a run: arrays only, so that a checkpoint holds nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from cnnjax import models

PyTree = Any
NO_STEP = 2**31 - 1


@struct.dataclass
class TrainState:
    """Everything that a step changes.

    Attributes:
      step: int32 scalar, steps done.
      params: float32.
      batch_stats: running mean and variance of batch norm; {} without one.
      opt_state: of the optax chain, which knows only the parameters that train.
      average: exponential moving averages {"params": …, "batch_stats": …}; {} where they are off.
      window: sums since the last log line (see `empty_window`). They are part of the state so that
        a run that resumes between two log lines writes the same next line.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    window: dict[str, jax.Array]
    average: PyTree = struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, PyTree]:
        """What `module.apply` takes in training."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def eval_variables(self) -> dict[str, PyTree]:
        """What `module.apply` takes for all else: the averages if there are any."""
        return self.average or self.variables


def empty_window() -> dict[str, jax.Array]:
    """Returns the sums before the first example: the loss float32, right answers and count int32.

    `bad_step`, int32, is the first step whose loss was not finite, or `NO_STEP`.
    """
    return {"loss": jnp.zeros((), jnp.float32), "top1": jnp.zeros((), jnp.int32),
            "count": jnp.zeros((), jnp.int32), "bad_step": jnp.full((), NO_STEP, jnp.int32)}


def create_state(module: nn.Module, optimizer: optax.GradientTransformation, key: jax.Array,
                 input_shape: tuple[int, ...],
                 trainable: Callable[[PyTree], PyTree] = lambda params: params,
                 average: bool = False) -> TrainState:
    """Returns the state at step 0. Pure: `jax.eval_shape` of it gives the shapes for a restore.

    Args:
      module: the whole model.
      optimizer: knows what `trainable` chooses of the parameters, by default all.
      key: of the run, `jax.random.key(seed)`; its steps draw from it, too.
      input_shape: (N, H, W, C).
      trainable: params -> those that train.
      average: whether the state holds averages of the parameters and batch statistics.
    """
    key = jax.random.fold_in(key, NO_STEP)  # No training step has this number.
    drawn = models.init_variables(module, key, input_shape)
    variables = {"params": drawn["params"], "batch_stats": drawn.get("batch_stats", {})}
    return TrainState(step=jnp.zeros((), jnp.int32), params=variables["params"],
                      batch_stats=variables["batch_stats"],
                      opt_state=optimizer.init(trainable(variables["params"])),
                      window=empty_window(), average=start_average(variables) if average else {})


def start_average(variables: PyTree) -> PyTree:
    """Returns the averages before the first step that they take in, which replaces them.

    They are copies: a state of which two leaves are one buffer could not be donated.
    """
    return jax.tree.map(jnp.copy, variables)
