"""The config of an experiment: every key with its default, presets and durations.

An experiment file starts from `default()` and changes what it needs:

    from cnnjax import config as config_lib

    def get_config(preset=None):
        config = config_lib.default()
        config.model.name = "resnet50"
        return config_lib.apply_preset(config, preset, PRESETS)

Durations. Wherever a length of time is meant, four keys stand side by side: `*_steps`, `*_epochs`,
`*_examples` and `*_percent` (of the whole run; the run itself has no percent). At most one is set;
the others are None.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from cnnjax.defaults import sections
from cnnjax.durations import UNITS, in_steps, join
from cnnjax.types import UserError, did_you_mean

# Keys that say where a run stops.
LENGTH = ("train.steps", "train.epochs", "train.examples", "train.stop_after_steps")

# Keys that may differ between the run that wrote a workdir and the run that goes on in it.
MAY_CHANGE_ON_RESUME = (*LENGTH, "train.on_non_finite", "train.rollback_lr_factor",
                        "train.max_rollbacks", "deterministic",
                        "eval.", "checkpoint.", "log.", "data.threads", "data.workers",
                        "data.data_dir",
                        "data.on_error", "summarize.",
                        "data.manual_dir", "data.placement", "devices", "predict.", "export.",
                        "prepare.", "visualize.", "seeds", "sweep.", "sharding.", "train.remat",
                        "lr_finder.", "benchmark.")

# Keys that may differ between the processes of a run: what a host has, and whom it tells.
MAY_DIFFER_BY_HOST = ("data.data_dir", "data.manual_dir", "data.threads", "data.workers",
                      "log.progress")


def default() -> ConfigDict:
    """Returns a config with every key, its type and its default; `model.name` is still empty."""
    config = ConfigDict(sections())
    config.log.every_percent = 2.0
    config.eval.every_epochs = 1.0
    return config


def phase_steps(config: ConfigDict, examples: int) -> tuple[int, int]:
    """Returns the steps of the head's phase and of the one after it, either of which may be 0.

    They are rounded up so that no epoch is cut short.

    Raises:
      UserError: if both are 0, or are more steps together than 31 bits count.
    """
    lengths = {section: in_steps(config[section], "", batch_size=config.train.batch_size,
                                 examples=examples, where=section) or 0
               for section in ("head", "train")}
    if (total := sum(lengths.values())) >= 2**31 - 1:
        raise UserError(f"The run of {total:.3g} steps is too long: a step is counted in 31 bits. "
                        f"Set a smaller --config.{max(lengths, key=lengths.get)}.epochs=N.")
    # 3 epochs of 1,000 examples at batch 100 are 30 steps, though 3 * 10.0 may be
    # 30.000000000004.
    found = tuple(max(1, math.ceil(length - 1e-6)) if length else 0
                  for length in lengths.values())
    if not any(found):
        raise UserError("The run has no length: set --config.train.epochs=N "
                        "(or train.steps, or train.examples).")
    return found


def total_steps(config: ConfigDict, examples: int) -> int:
    """Returns the length of the run in steps."""
    return sum(phase_steps(config, examples))


def apply_preset(config: ConfigDict, preset: str | None,
                 presets: Mapping[str, Callable[[ConfigDict], None]]) -> ConfigDict:
    """Returns the config changed by `presets[preset]`; the first preset when none is named.

    Raises:
      UserError: if there is no such preset; the message lists those there are.
    """
    preset = preset or next(iter(presets))
    if preset not in presets:
        raise UserError(f"There is no preset {preset!r} here.{did_you_mean(preset, presets)} "
                        f"The presets: {', '.join(':' + name for name in presets)}.")
    presets[preset](config)
    return config


def let_overrides_replace_units(config: ConfigDict, overridden: Iterable[str]) -> None:
    """Unsets the file's duration where the command line gives the same one in another unit.

    `--config.train.steps=100` replaces a file's `train.epochs = 90`. Two units on the command line
    stay, and are the error that they are.
    """
    overridden = set(overridden)
    for key in overridden:
        section, _, name = key.rpartition(".")
        prefix, _, unit = name.rpartition("_")
        if unit not in UNITS or not section:
            continue
        for other in UNITS:
            sibling = join(prefix, other)
            if f"{section}.{sibling}" not in overridden and sibling in config[section]:
                config[section][sibling] = None


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"model.name": …, "train.batch_size": …}, tuples as lists, as JSON would give."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, (ConfigDict, Mapping)):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = _as_lists(value)
    return flat


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def model_overrides(config: ConfigDict) -> dict[str, Any]:
    """Returns the arguments of the model that the config sets."""
    from cnnjax import models  # Here, because `--help` should not wait for Flax.

    return models.arguments_of(config.model)


def namesakes(key: str) -> list[str]:
    """Returns the keys of other sections that end as a key does, the most alike first.

    `optimizer.lr` and `lr` are probably meant for `schedule.lr`, and not for `optimizer.b1`.
    """
    last = key.rpartition(".")[2]
    found = [name for name in flatten(default()) if name.rpartition(".")[2] == last]
    return sorted(found, key=lambda name: (  # Few runs have a phase for the head.
        name.startswith("head."), -difflib.SequenceMatcher(None, name, key).ratio()))


def may_be_none(key: str) -> bool:
    """Whether a key may be unset: those without a default, and durations though some have one."""
    return re.split(r"[._]", key)[-1] in UNITS or _defaults()[key] is None


@functools.cache
def _defaults() -> dict[str, Any]:
    return flatten(default())
