"""Lengths of time in a config: any of steps, epochs, examples and percent, at most one of them."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict, config_dict

from cnnjax.types import UserError

UNITS = {"steps": int, "epochs": float, "examples": int, "percent": float}


def durations(prefix: str, percent: bool = True) -> dict[str, Any]:
    """Returns the unset keys of one duration: {"warmup_steps": None, "warmup_epochs": None, …}."""
    return {join(prefix, unit): config_dict.placeholder(kind) for unit, kind in UNITS.items()
            if percent or unit != "percent"}


def join(prefix: str, unit: str) -> str:
    """Returns the key of a duration: "warmup_steps", or "steps" without a prefix."""
    return f"{prefix}_{unit}" if prefix else unit


def in_steps(section: ConfigDict, prefix: str, *, batch_size: int, examples: int,
             total: int | None = None, where: str = "") -> Any:
    """Returns one duration in steps, as a float (or a tuple of them), or None if it is unset.

    Args:
      section: the part of the config that holds the keys, such as `config.schedule`.
      prefix: "warmup" for `warmup_steps`, `warmup_epochs`, …; "" for `steps`, `epochs`, ….
      batch_size: examples in a step.
      examples: examples in an epoch.
      total: steps in the whole run, which `percent` is of.
      where: the section's name, for messages.

    Raises:
      UserError: if two units are set at once, or the duration is negative or not finite.
    """
    path = f"{where}." if where else ""
    given = {unit: section[join(prefix, unit)] for unit in UNITS
             if section.get(join(prefix, unit)) is not None}
    if len(given) > 1:
        keys = " and ".join(f"{path}{join(prefix, unit)}={value}"
                            for unit, value in given.items())
        raise UserError(f"Two durations at once: {keys}. Keep one and set the other to None.")
    if not given:
        return None
    unit, value = given.popitem()
    factor = {"steps": 1.0, "epochs": examples / batch_size, "examples": 1.0 / batch_size,
              "percent": (total or 0) / 100}[unit]
    for number in value if isinstance(value, tuple) else (value,):
        if not 0 <= number < 1e15:  # Far above any run, far below where floats overflow.
            raise UserError(f"{path}{join(prefix, unit)} is {number}; "
                            "a duration is a finite number from 0 to 1e15.")
    return tuple(v * factor for v in value) if isinstance(value, tuple) else value * factor
