"""What a sweep is: named trials, and the folder that holds them.

An experiment file that sweeps defines `sweep(preset)` beside `get_config(preset)`:

    from cnnjax.sweeps import Trial

    def sweep(preset=None):
        for lr in (0.01, 0.1, 1.0):
            yield Trial(f"lr_{lr}", {"schedule.lr": lr}, {"lr": lr})

It may read earlier results, which makes it a search: where it yields a list of trials instead of
one, it goes on when they are done, and is given their `Result`s, one for each seed of each. As a
sweep that was killed calls it again and gives it the results that are there, it must draw the same
trials again from the same results:

    def sweep(preset=None):
        results = yield [Trial(f"lr_{lr}", {"schedule.lr": lr}) for lr in (0.01, 0.1, 1.0)]
        done = [r for r in results if r.done]
        if not done:
            return  # The trials' errors are printed.
        lr = max(done, key=lambda r: r.summary["top1"]).trial.overrides["schedule.lr"]
        yield Trial("fine_low", {"schedule.lr": lr / 2})
        yield Trial("fine_high", {"schedule.lr": lr * 2})

What the command line overrides goes to every trial and wins over its own. A sweep whose trials
depend on the rest of the config asks for it, with those overrides in it, and then its trials' own
overrides win:

    def sweep(preset, config):
        for factor in (1, 2, 4):
            yield Trial(f"batch_{factor}x", {"train.batch_size": factor * config.train.batch_size})

The folder of a sweep:

    SWEEP/sweep.json            what was asked for: experiment, preset, seeds, trials
    SWEEP/lr_0.1/seed_0/        an ordinary workdir: config.json, metrics.jsonl, summary.json, …
    SWEEP/lr_0.1/seed_0/trial.json   what the sweep knows of it: state, attempts, seconds, message
    SWEEP/summary.json          mean, standard deviation and 95 % interval over the seeds of each

trial.json's state is waiting, running, done or failed. A run of several seeds without a sweep
(`--config.seeds=5`) is a sweep of one trial without a name, so that its runs lie in WORKDIR/seed_0/
and so on.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import statistics
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnjax import files
from cnnjax.durations import UNITS
from cnnjax.types import UserError

SWEEP, TRIAL = "sweep.json", "trial.json"
CONFIG, SUMMARY = "config.json", "summary.json"  # Of any run.
_WHICH_DATA = ("name", "train_split", "eval_split", "val_fraction", "split_seed")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One point of a sweep.

    Attributes:
      name: a folder's name, unique in the sweep: letters, digits and any of "._=+-". "" is the
        sweep's own folder.
      overrides: {"model.width": 0.5}, keys of the config with their values, as on the command line.
        Numbers of NumPy become Python's, here and in tags.
      tags: what a report tells trials apart by, besides the overrides: {"family": "width"}.
    """

    name: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str | float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for field in ("overrides", "tags"):
            object.__setattr__(self, field, {
                key: _plain(value) for key, value in (getattr(self, field) or {}).items()})
        if self.name and not re.fullmatch(r"\w[\w.=+-]*", self.name):
            raise UserError(f"{self.name!r} is no name of a trial: it names a folder, and takes "
                            "letters, digits and any of . _ = + -.")
        for key, value in self.tags.items():
            if not isinstance(value, str) and not (
                    isinstance(value, (int, float)) and math.isfinite(value)):
                raise UserError(f"Trial {self.name!r}: its tag {key!r} is {value!r}; a tag is text "
                                "or a finite number. Leave out what is not known.")


def _plain(value: Any) -> Any:
    """Returns a value with Python's numbers in place of NumPy's, which this module does not import.
    """
    if isinstance(value, (tuple, list)):
        return (tuple if isinstance(value, tuple) else list)(map(_plain, value))
    return value.item() if getattr(value, "shape", None) == () else value


@dataclasses.dataclass(frozen=True)
class Result:
    """What lies in the folder of one trial with one seed.

    Attributes:
      trial: as the sweep asked for it. `read` gives it as it runs: with what the command line
        overrides among its overrides.
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
        """Whether it trained to its end.

        One that failed has not, although a summary be there: it is that of the trial of this name
        as it was, before its overrides were changed.
        """
        return is_over(self.summary) and self.state.get("state") != "failed"


def changed_data(results: Iterable[Result]) -> str:
    """Returns a sentence on runs between which their data have changed; "" if none have.

    One that goes on is refused then; these began on either side of the change.
    """
    runs: dict[tuple[str, ...], dict[str, Path]] = {}
    for result in results:
        if result.done and (fingerprint := result.summary.get("data_fingerprint")):
            asked = result.config.get("data", {})
            which = tuple(str(asked.get(key)) for key in _WHICH_DATA)
            runs.setdefault(which, {}).setdefault(fingerprint, result.folder)
    changed = [f"{which[0]} changed between {' and '.join(map(str, folders.values()))}"
               for which, folders in runs.items() if len(folders) > 1]
    return "; ".join(changed) + (": their accuracies are not of the same images. To compare them, "
                                 "run all in a new --workdir.") if changed else ""


def is_over(summary: Mapping[str, Any] | None) -> bool:
    """Whether a run's summary is that of its end, or of the step where it was to stop."""
    return summary is not None and summary.get("status") in ("done", "stopped")


def next_wave(trials: Iterator[Trial | Iterable[Trial]], results: list[Result] | None
              ) -> list[Trial]:
    """Returns the trials that a sweep wants to have run next, [] at its end.

    Args:
      trials: what `sweep(preset)` returned, as an iterator.
      results: of the wave before, None before the first.

    Raises:
      UserError: if it yields anything but trials and lists of them.
    """
    wave = []
    while True:
        try:
            item = trials.send(results) if isinstance(trials, Generator) else next(trials)
        except StopIteration:
            return wave
        if isinstance(item, Trial):
            wave.append(item)
            results = None
            continue
        item = list(item) if isinstance(item, Iterable) and not isinstance(item, Mapping) else [
            item]
        for trial in item:
            if not isinstance(trial, Trial):
                raise UserError(f"sweep() yields {trial!r}; it yields Trials, or lists of them.")
        wave += item
        if wave:
            return wave
        results = []


def effective(trial: Trial, given: Mapping[str, Any], trials_win: bool) -> dict[str, Any]:
    """Returns the overrides that a trial runs with: its own and those of the command line.

    Args:
      trial: as the sweep asked for it.
      given: on the command line.
      trials_win: whose count where both say something: of a length of time, in whatever unit.
    """
    weak, strong = (given, trial.overrides) if trials_win else (trial.overrides, given)
    said = set(map(_duration, strong))
    return {key: value for key, value in weak.items() if _duration(key) not in said} | dict(strong)


def replaced(trial: Trial, given: Mapping[str, Any]) -> list[str]:
    """Returns the keys of a trial in whose place the command line has something to say."""
    said = set(map(_duration, given))
    return [key for key in trial.overrides if _duration(key) in said]


def _duration(key: str) -> str:
    """Returns what a duration is of, whatever its unit: "train." for train.epochs; else the key."""
    section, _, name = key.rpartition(".")
    prefix, _, unit = name.rpartition("_")
    return f"{section}.{prefix}" if unit in UNITS else key


def spread(values: Sequence[float], name: str = "top1") -> dict[str, float | int | None]:
    """Returns {name_mean, name_std, name_ci95, n} of one number measured with several seeds.

    The standard deviation is that of a sample (n - 1). ci95 is half the width of the 95 % interval
    of the mean by Student's t with n - 1 degrees of freedom: the mean is mean ± ci95. With one
    value both are None, with none the mean as well.
    """
    from scipy.special import stdtrit

    n = len(values)
    mean = statistics.fmean(values) if n else None
    std = statistics.stdev(values) if n > 1 else None
    return {f"{name}_mean": mean, f"{name}_std": std,
            f"{name}_ci95": float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n) if n > 1 else None,
            "n": n}


def folder_of(sweep: Path, name: str, seed: int) -> Path:
    """Returns the workdir of a trial."""
    return sweep / name / f"seed_{seed}"


def write(sweep: Path, trials: Iterable[Trial], seeds: Iterable[int], **about: Any) -> None:
    """Writes sweep.json, whole or not at all; `about` is its experiment, preset and so on."""
    sweep.mkdir(parents=True, exist_ok=True)
    files.write_json(sweep / SWEEP, {
        **about, "seeds": list(seeds), "trials": [dataclasses.asdict(trial) for trial in trials]})


def read(sweep: Path) -> tuple[dict[str, Any], list[Result]]:
    """Returns what sweep.json says about the sweep, and every trial with every seed, in order.

    Raises:
      UserError: if the folder holds no sweep, or its file is damaged.
    """
    try:
        about = json.loads((sweep / SWEEP).read_text())
        trials, seeds = [Trial(**row) for row in about.pop("trials")], about["seeds"]
        given, win = about.get("overrides", {}), about.get("trials_win", False)
        trials = [dataclasses.replace(trial, overrides=effective(trial, given, win))
                  for trial in trials]
    except FileNotFoundError:
        raise UserError(f"There is no sweep in {sweep}: it has no {SWEEP}. Run one with python "
                        "launch.py --config=FILE --job=sweep --workdir=DIR.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{sweep / SWEEP} cannot be read: {error}.") from None
    return about, [_result(sweep, trial, seed) for trial in trials for seed in seeds]


def _result(sweep: Path, trial: Trial, seed: int) -> Result:
    folder = folder_of(sweep, trial.name, seed)
    return Result(trial, seed, folder, json_in(folder / TRIAL) or {},
                  json_in(folder / CONFIG) or {}, json_in(folder / SUMMARY))


def diverged(folder: Path) -> bool:
    """Whether the run in a folder has ended because its loss, or a parameter, was not finite."""
    return (json_in(folder / SUMMARY) or {}).get("status") == "non_finite"


def json_in(path: Path) -> dict[str, Any] | None:
    """Returns the object in a file, or None if it is not there, not yet, or damaged."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
