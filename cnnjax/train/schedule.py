"""Learning-rate schedules: warm-up, then one of several ways to decay; and the range test."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from cnnjax.types import UserError


def scaled_lr(lr: float, batch_size: int, reference_batch_size: int | None) -> float:
    """Returns lr · batch_size / reference: the linear scaling rule (arXiv 1706.02677, section 2.1).

    None as the reference leaves `lr` alone.
    """
    return lr * batch_size / reference_batch_size if reference_batch_size else lr


def make_schedule(name: str, *, lr: float, total_steps: int, warmup_steps: float = 0.0,
                  final_lr: float = 0.0, drop_steps: Sequence[float] = (),
                  drop_every_steps: float = 0.0, drop_factor: float = 0.1,
                  range_start: float = 1e-6) -> optax.Schedule:
    """Returns step -> learning rate, float32. All lengths are in steps.

    The warm-up rises linearly from lr / (warmup + 1) at step 0, so that the first step already
    learns, and reaches `lr` at step `warmup_steps` (arXiv 1706.02677, section 2.2), or what the
    drops until then have left of it: within the warm-up there are none.

    Args:
      name: "constant"; "cosine", lr · (f + (1 − f) · (1 + cos πt) / 2) (arXiv 1608.03983);
        "linear", lr · (1 − t + f·t); "step", lr · drop_factor^(number of drops passed);
        "exponential", lr · drop_factor^⌊step / drop_every_steps⌋; "range_test", which rises,
        lr · range_start^(1 − t) (arXiv 1506.01186, section 3.3). t runs from 0 at the end of the
        warm-up to 1 at `total_steps`, and f is `final_lr`.
      lr: the peak.
      total_steps: steps of the whole run.
      warmup_steps: steps of the warm-up, counted in the total.
      final_lr: the fraction of `lr` where cosine and linear end.
      drop_steps: for "step", the steps at which the rate is multiplied by `drop_factor`.
      drop_every_steps: for "exponential", the steps between two drops, counted from the start of
        the run, its warm-up included, as in the TensorFlow code of the nets that are trained so
        (Inception, MobileNet, EfficientNet).
      drop_factor: what a drop multiplies the rate by.
      range_start: the fraction of `lr` where "range_test" begins.

    Raises:
      UserError: for an unknown name, a warm-up as long as the run, or "step" or "exponential"
        without drops.
    """
    _check(name, total_steps, warmup_steps, drop_steps, drop_every_steps)
    shapes = {
        "constant": lambda step, t: jnp.ones_like(t),
        "cosine": lambda step, t: final_lr + (1 - final_lr) * 0.5 * (1 + jnp.cos(jnp.pi * t)),
        "linear": lambda step, t: 1 - t + final_lr * t,
        "step": lambda step, t: drop_factor ** jnp.sum(
            step[..., None] >= jnp.asarray(drop_steps, jnp.float32), axis=-1),
        # XLA multiplies by the reciprocal, and 41 / 41 may then be less than 1.
        "exponential": lambda step, t: drop_factor ** jnp.floor(
            step / drop_every_steps * (1 + 4e-7)),
        "range_test": lambda step, t: range_start ** (1 - t),
    }
    if name not in shapes:
        raise UserError(f"There is no schedule {name!r}; there are {', '.join(shapes)}.")

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        t = jnp.clip((step - warmup_steps) / max(1.0, total_steps - warmup_steps), 0.0, 1.0)
        rise = (step + 1) / (warmup_steps + 1) * (range_start if name == "range_test" else 1.0)
        return lr * jnp.where(step < warmup_steps, rise, shapes[name](step, t))

    return schedule


def _check(name: str, total_steps: int, warmup_steps: float, drop_steps: Sequence[float],
           drop_every_steps: float) -> None:
    if warmup_steps >= total_steps and warmup_steps > 0:
        raise UserError(f"The warm-up of {warmup_steps:g} steps is as long as the run of "
                        f"{total_steps}: shorten schedule.warmup_* or train longer.")
    if name == "step" and not drop_steps:
        raise UserError("schedule.name is 'step' but no drops are given: set one of "
                        "schedule.drop_epochs, drop_steps, drop_examples or drop_percent, "
                        "such as (30, 60, 80).")
    if name == "exponential" and not drop_every_steps > 0:
        raise UserError("schedule.name is 'exponential' but the time between two drops is not "
                        "given: set one of schedule.drop_every_epochs, drop_every_steps, "
                        "drop_every_examples or drop_every_percent above 0, such as "
                        "drop_every_epochs=2.4, and drop_factor=0.97.")
