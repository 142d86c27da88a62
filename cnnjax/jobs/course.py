"""The course of a run: its learning rates, the steps of a call, when it logs, saves and stops."""

from __future__ import annotations

import functools

import jax
import optax
from ml_collections import ConfigDict

from cnnjax import config as config_lib
from cnnjax.jobs.phases import Phase
from cnnjax.train import schedule as schedule_lib
from cnnjax.train.loop import Every, Schedule
from cnnjax.types import UserError


def make_learning_rate(config: ConfigDict, examples: int, total: int) -> optax.Schedule:
    """Returns step -> learning rate."""
    steps = functools.partial(config_lib.in_steps, config.schedule, examples=examples, total=total,
                              batch_size=config.train.batch_size, where="schedule")
    drops = steps("drop")
    return schedule_lib.make_schedule(
        config.schedule.name, total_steps=total, warmup_steps=steps("warmup") or 0.0,
        lr=peak_lr(config),
        final_lr=config.schedule.final_lr, drop_steps=drops or (),
        drop_every_steps=steps("drop_every") or 0.0, drop_factor=config.schedule.drop_factor,
        range_start=config.schedule.range_start)


def peak_lr(config: ConfigDict) -> float:
    """Returns the highest learning rate, scaled to the batch if the config says so."""
    return schedule_lib.scaled_lr(config.schedule.lr, config.train.batch_size,
                                  config.schedule.lr_batch_size)


def steps_per_call(config: ConfigDict) -> int:
    """Returns how many steps one call of the device makes.

    A function of the config and the backend alone, because one step and several may differ in the
    last bit: it must be the same wherever a run resumes.
    """
    if config.train.steps_per_call:
        return config.train.steps_per_call
    return 1 if jax.default_backend() == "cpu" else 16


def make_schedule(config: ConfigDict, examples: int, total: int) -> Schedule:
    """Returns when the loop logs, evaluates and saves; it stops at the end.

    Raises:
      UserError: if an interval is 0.
    """
    def every(section):
        interval = config_lib.in_steps(config[section], "every", examples=examples, total=total,
                                       batch_size=config.train.batch_size, where=section)
        if interval is not None and interval <= 0:
            raise UserError(f"{section}.every_* is 0; give it a length, or None for never.")
        return () if interval is None else (max(1.0, interval),)

    evaluate = every("eval")
    head, _ = config_lib.phase_steps(config, examples)
    ends = (head,) if head else ()
    return Schedule(
        log=Every(every("log"), total, ends), evaluate=Every(evaluate, total, ends),
        # At every evaluation too, or the best one might not be among those that were saved.
        save=Every(every("checkpoint") + evaluate, total, ends),
        stop=total)


def last_step(config: ConfigDict, phases: tuple[Phase, ...]) -> int:
    """Returns the step at which the run ends: of `stop_after_steps` the end of that call."""
    k, stop = steps_per_call(config), config.train.stop_after_steps
    if stop is None:
        return phases[-1].stop
    # Calls start anew with a phase.
    phase = next((phase for phase in phases if stop <= phase.stop), phases[-1])
    return min(phase.stop, phase.start - (phase.start - stop) // k * k)
