"""Exponential moving averages of parameters and batch statistics."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def scaled_decay(decay: float, batch_size: int, reference_batch_size: int | None) -> float:
    """Returns decay ** (batch_size / reference): the same average over examples, not over steps.

    A batch four times as large makes a quarter of the steps, and each forgets as much as four did.
    None as the reference leaves `decay` alone.
    """
    return decay ** (batch_size / reference_batch_size) if reference_batch_size else decay


def update_average(average: PyTree, values: PyTree, decay: float, step: jax.Array) -> PyTree:
    """Moves an average towards the values after step number `step`, 1 or more.

    The average after step t is Σ d^(t−i) v_i / Σ d^(t−i), i from 1 to t: the exponential moving
    average whose weights sum to 1 from the first step on, as Adam corrects its bias (arXiv
    1412.6980, section 3). Without that a short run would evaluate mostly the initial values.

    Args:
      average: before; what it holds before step 1 has no influence.
      values: after the step.
      decay: d, above 0 and below 1.
      step: int scalar.
    """
    # The share of the newest, (1 − d) / (1 − d^t), without the cancellation of d near 1.
    log_decay = math.log(decay)
    share = math.expm1(log_decay) / jnp.expm1(log_decay * step.astype(jnp.float32))
    return jax.tree.map(lambda a, v: (1 - share) * a + share * v, average, values)
