"""What a sweep is: named trials, and the folder that holds them.

An experiment file that sweeps defines `sweep(preset)` beside `get_config(preset)`:

    from cnnjax.sweeps import Trial

    def sweep(preset=None):
        for lr in (0.01, 0.1, 1.0):
            yield Trial(f"lr_{lr}", {"schedule.lr": lr}, {"lr": lr})

The folder of a sweep:

    SWEEP/sweep.json            what was asked for: experiment, preset, seeds, trials
    SWEEP/lr_0.1/seed_0/        an ordinary workdir: config.json, metrics.jsonl, summary.json, …
    SWEEP/lr_0.1/seed_0/trial.json   what the sweep knows of it: state, attempts, seconds, message
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cnnjax.types import UserError

SWEEP = "sweep.json"
TRIAL = "trial.json"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One point of a sweep.

    Attributes:
      name: a folder's name, unique in the sweep: letters, digits and any of "._=+-".
      overrides: {"model.width": 0.5}, keys of the config with their values, as on the command line.
      tags: what a report tells trials apart by, besides the overrides: {"family": "width"}.
    """

    name: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str | float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not re.fullmatch(r"\w[\w.=+-]*", self.name):
            raise UserError(f"{self.name!r} is no name of a trial: it names a folder, and takes "
                            "letters, digits and any of . _ = + -.")


@dataclasses.dataclass(frozen=True)
class Result:
    """What lies in the folder of one trial with one seed.

    Attributes:
      trial: as the sweep asked for it.
      seed: of this run.
      folder: an ordinary workdir, perhaps not there yet.
      state: what trial.json holds, {} before the trial has begun.
      config: what config.json holds, {} before the trial has begun.
      summary: what summary.json holds, None while there is none.
    """

    trial: Trial
    seed: int
    folder: Path
    state: Mapping[str, Any]
    config: Mapping[str, Any]
    summary: Mapping[str, Any] | None

    @property
    def done(self) -> bool:
        """Whether it trained to its end."""
        return self.summary is not None and self.summary.get("status") in ("done", "stopped")


def folder_of(sweep: Path, name: str, seed: int) -> Path:
    """Returns the workdir of a trial."""
    return sweep / name / f"seed_{seed}"


def write(sweep: Path, trials: Iterable[Trial], seeds: Iterable[int], **about: Any) -> None:
    """Writes sweep.json, whole or not at all; `about` is its experiment, preset and so on."""
    sweep.mkdir(parents=True, exist_ok=True)
    beside = sweep / (SWEEP + ".new")
    beside.write_text(json.dumps({
        **about, "seeds": list(seeds),
        "trials": [dataclasses.asdict(trial) for trial in trials]}, indent=1) + "\n")
    beside.replace(sweep / SWEEP)


def read(sweep: Path) -> tuple[dict[str, Any], list[Result]]:
    """Returns what sweep.json says about the sweep, and every trial with every seed, in order.

    Raises:
      UserError: if the folder holds no sweep, or its file is damaged.
    """
    try:
        about = json.loads((sweep / SWEEP).read_text())
        trials, seeds = [Trial(**row) for row in about.pop("trials")], about["seeds"]
    except FileNotFoundError:
        raise UserError(f"There is no sweep in {sweep}: it has no {SWEEP}. Run one with python "
                        "launch.py --config=FILE --job=sweep --workdir=DIR.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{sweep / SWEEP} cannot be read: {error}.") from None
    return about, [_result(sweep, trial, seed) for trial in trials for seed in seeds]


def _result(sweep: Path, trial: Trial, seed: int) -> Result:
    folder = folder_of(sweep, trial.name, seed)
    return Result(trial, seed, folder, _json(folder / TRIAL) or {},
                  _json(folder / "config.json") or {}, _json(folder / "summary.json"))


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # Not there yet, or of a trial that is being written just now.
        return None
