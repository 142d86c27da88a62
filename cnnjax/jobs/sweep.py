"""--job=sweep: many runs of one experiment, here or on a cluster; and the seeds of a run."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.machinery
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax import checkpoint_files, exit_codes, sweeps
from cnnjax import config as config_lib
from cnnjax.config_errors import explain
from cnnjax.jobs import console, signals, workdir
from cnnjax.jobs.lock import Lock
from cnnjax.jobs.sweeping import executors, outcome
from cnnjax.jobs.sweeping.engine import Engine, Run
from cnnjax.jobs.sweeping.halving import JOURNAL, Halving
from cnnjax.jobs.sweeping.table import Display
from cnnjax.sweeps import Result, Trial
from cnnjax.types import UserError
from cnnjax.validation import validate

LOCK = ".lock"
_PATIENCE = 5.0  # Seconds; trials that ask whether the sweep lives hold its lock for an instant.
_STOPPED = "Stopped; what ran has saved. Run the same command to go on."
_LEFT_IN_QUEUE = ("The trials stay in the cluster's queue. Run the same command to see them, and "
                  "to have those tried again that fail.")
_LAUNCH = Path(__file__).resolve().parents[2] / "launch.py"


def run(config: ConfigDict, folder: Path, dry_run: bool = False, experiment: str | None = None,
        overrides: Mapping[str, Any] | None = None, named: bool = True) -> int:
    """Runs every trial with every seed, or goes on with those that are not done.

    Args:
      config: of the experiment, with the overrides of the command line.
      folder: of the sweep.
      dry_run: prints the trials instead.
      experiment: FILE[:PRESET].
      overrides: of the command line, which every trial gets.
      named: False runs the seeds of the experiment itself instead of its sweep().

    Returns:
      The exit code: 0 if all are done, 1 if some failed, 75 if the sweep was stopped.

    Raises:
      UserError: if there is no sweep, a trial cannot be, or the folder holds something else.
    """
    if experiment is None:
        raise UserError("A sweep needs its experiment: name it with --config=FILE.")
    trials, informed = load(experiment, config) if named else (iter([Trial("")]), False)
    sweep = _Sweep(config, folder, experiment, dict(overrides or {}), informed, named)
    if dry_run:
        with _explaining(experiment):
            wave = sweeps.next_wave(trials, None)
        sweep.show(wave)
        return 0
    sweep.check_folder()
    lock = Lock(folder / LOCK)
    if not lock.take(seconds=_PATIENCE):
        raise UserError(f"Another process runs the sweep in {folder}.")
    try:
        with workdir.report_no_room(folder):
            return sweep.run(trials)
        return exit_codes.FAILED
    finally:
        lock.release()


def load(experiment: str, config: ConfigDict) -> tuple[Iterator[Any], bool]:
    """Returns what sweep() of the experiment's file gives, and whether it was told the config.

    Args:
      experiment: FILE[:PRESET].
      config: of the experiment, with the overrides of the command line; for sweep(preset, config).

    Raises:
      UserError: if it has none, or it fails.
    """
    file, _, preset = experiment.partition(":")
    # Of its own, because importlib has none for a file whose name does not end in .py.
    loader = importlib.machinery.SourceFileLoader("cnnjax_sweep", file)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Where dataclasses look for what their annotations name.
    with _explaining(experiment):
        spec.loader.exec_module(module)
        if not hasattr(module, "sweep"):
            raise UserError(f"{file} defines no sweep(preset) beside its get_config. What one "
                            "looks like stands in cnnjax/sweeps.py; for several seeds of one run, "
                            "use --config.seeds=5 without --job.")
        if "config" in inspect.signature(module.sweep).parameters:
            return iter(module.sweep(preset or None, config=copy.deepcopy(config))), True
        return iter(module.sweep(preset or None)), False


@contextlib.contextmanager
def _explaining(experiment: str) -> Iterator[None]:
    """Makes what the experiment's own code raises an error of the user's, with its line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"sweep() of {experiment} failed: {explain(error, experiment)}") from error


class _Sweep:
    """A sweep and where it has got to."""

    def __init__(self, config: ConfigDict, folder: Path, experiment: str,
                 overrides: dict[str, Any], informed: bool, named: bool):
        self._config, self._folder, self._experiment = config, folder, experiment
        self._overrides = {key: value for key, value in overrides.items()
                           if key not in ("seed", "seeds") and not key.startswith("sweep.")}
        self._named = named
        self._halved = {key: value for key, value in overrides.items()
                        if key.startswith("sweep.asha")}
        self._trials_win = informed  # They were made in view of the command line.
        self._seeds = range(config.seed, config.seed + max(1, config.seeds))
        self._trials: list[Trial] = []
        self._halving, self._examples = None, {}
        if config.sweep.asha and len(self._seeds) > 1:
            raise UserError("sweep.asha compares trials by one seed each: leave out seeds, and run "
                            "the best trial with several afterwards.")

    def check_folder(self) -> None:
        """Creates the folder, unless it holds something else."""
        if (self._folder / workdir.CONFIG).exists():
            raise UserError(f"{self._folder} holds a run, and a sweep needs a folder of its own: "
                            "give another --workdir.")
        checkpoint_files.check_name(self._folder)
        workdir.check_writable(self._folder)
        about = workdir.read_json(self._folder / sweeps.SWEEP) or {}
        saved = about.get("experiment")
        if about.get("named", self._named) != self._named:
            raise UserError(f"{self._folder} holds " + (
                "several seeds of a run, not a sweep" if self._named else
                "a sweep, not several seeds of a run") + ": give another --workdir.")
        if saved and _real(saved) != _real(self._experiment):
            raise UserError(f"{self._folder} holds a sweep of {saved}, not of "
                            f"{self._experiment}: give another --workdir.")
        # However its path is written now, the trials' commands stay, and what is done is done.
        self._experiment = saved or self._experiment

    def run(self, trials: Iterator[Any]) -> int:
        wave = self._next(trials, None)
        # Before the signals: Ray has handlers of its own.
        executor = executors.make(self._config.sweep, self._folder,
                                  len(wave) * len(self._seeds))
        display = Display(plain=self._plain())
        with signals.stop_requests() as should_stop, contextlib.closing(display):
            while wave:
                runs = self._runs(wave)
                if not all(result.done for result in self._results(wave)):
                    self._forget_summary()
                engine = Engine(executor, Path.cwd(), self._config.sweep.retries,
                                watch=self._folder / LOCK, show=display.update,
                                should_stop=should_stop, advance=self._advance(runs))
                if not engine.run(runs):
                    display.close()
                    self._forget_summary()
                    print(_LEFT_IN_QUEUE if executor.detached else _STOPPED, flush=True)
                    return exit_codes.PREEMPTED
                try:
                    wave = self._next(trials, self._results(wave))
                except UserError:
                    display.close()
                    self._report()  # What has run says perhaps why there is no going on.
                    raise
        return exit_codes.FAILED if self._report() else 0

    def _forget_summary(self) -> None:
        """Removes the summary of an earlier end: it speaks of runs that now go on."""
        (self._folder / workdir.SUMMARY).unlink(missing_ok=True)

    def _report(self) -> int:
        """Writes and prints what there is, and returns how many runs failed."""
        return outcome.report(self._folder, self._experiment, sweeps.read(self._folder)[1])

    def show(self, wave: list[Trial]) -> None:
        """Prints the trials of the first wave."""
        self._check(wave)
        self._note_replaced(wave)
        console.print_table("Dry run: a sweep", {
            "trials": len(wave), "seeds": ", ".join(map(str, self._seeds)),
            "runs": len(wave) * len(self._seeds), "executor": self._config.sweep.executor,
            **{trial.name or "the experiment": ", ".join(
                f"{key}={value}" for key, value in self._effective(trial).items()) or "as it is"
               for trial in wave}})

    def _note_replaced(self, wave: list[Trial]) -> None:
        """Says what of the trials the command line has replaced."""
        keys = {} if self._trials_win else dict.fromkeys(
            key for trial in wave for key in sweeps.replaced(trial, self._overrides))
        if keys:
            print(f"Note: the command line counts instead of what trials say of {', '.join(keys)}: "
                  "their names and tags may say otherwise.", flush=True)

    def _next(self, trials: Iterator[Any], results: list[Result] | None) -> list[Trial]:
        with _explaining(self._experiment):
            wave = sweeps.next_wave(trials, results)
        self._check(wave)
        self._note_replaced(wave)
        self._trials += wave
        file, _, preset = self._experiment.partition(":")
        sweeps.write(self._folder, self._trials, self._seeds, experiment=self._experiment,
                     file=file, preset=preset or None, named=self._named,
                     trials_win=self._trials_win, overrides=config_lib.flatten(self._overrides),
                     halving=self._halved)
        return wave

    def _results(self, wave: list[Trial]) -> list[Result]:
        own = {trial.name: trial for trial in wave}
        return [dataclasses.replace(result, trial=own[result.trial.name])
                for result in sweeps.read(self._folder)[1] if result.trial.name in own]

    def _check(self, wave: list[Trial]) -> None:
        """Checks names and configs, before anything runs."""
        names = [trial.name for trial in [*self._trials, *wave]]
        if not names:
            raise UserError(f"sweep() of {self._experiment} yields no trial.")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"The sweep has two trials of the name {twice[0]!r}.")
        for trial in wave:
            if of_sweep := [key for key in trial.overrides
                            if key in ("seed", "seeds") or key.startswith("sweep.")]:
                raise UserError(
                    f"Trial {trial.name!r} sets {of_sweep[0]}, which is the whole sweep's: every "
                    "trial runs with the same seeds. Say --config.seeds=5 for seeds 0 to 4, and "
                    f"--config.{of_sweep[0]}=… on the command line.")
            try:
                config = self._with_overrides(trial)
                validate(config)
            except UserError as error:
                raise UserError(f"Trial {trial.name!r}: {error}") from None
            except (AttributeError, KeyError, TypeError) as error:
                raise UserError(f"Trial {trial.name!r} has overrides that do not fit the config: "
                                f"{' '.join(str(error).split())}.") from None
            for seed in self._seeds:
                self._check_folder_of(trial, config, seed)

    def _check_folder_of(self, trial: Trial, config: ConfigDict, seed: int) -> None:
        """Raises a UserError if the trial's folder holds a run that this one cannot continue."""
        folder = sweeps.folder_of(self._folder, trial.name, seed)
        if (saved := workdir.read_json(folder / workdir.CONFIG)) and workdir.holds_run(folder):
            config = config.copy_and_resolve_references()
            config.seed = seed
            from cnnjax.jobs import record  # What it imports takes a while, and few sweeps need it.

            record.check_goes_on(saved, config, folder)
            self._check_length(trial, config_lib.flatten(saved), config, folder)

    def _check_length(self, trial: Trial, saved: Mapping[str, Any], config: ConfigDict,
                      folder: Path) -> None:
        """Raises a UserError if the run in a trial's folder ended later than this one is to stop.

        The trial would fail, and its state take the place of the result that is there.
        """
        summary, sweep = workdir.read_json(folder / workdir.SUMMARY), self._config.sweep
        # With a journal the trials stand where successive halving has stopped them.
        halved = sweep.asha and not (self._folder / JOURNAL).exists()
        same = all(saved.get(key) == value for key, value in config_lib.flatten(config).items()
                   if key in config_lib.LENGTH)
        if not sweeps.is_over(summary) or same and not halved:
            return
        last = min(self._total_steps(trial), config.train.stop_after_steps or sys.maxsize)
        first = max(1, last // sweep.asha_reduction**sweep.asha_rungs)
        end, what = (first, f"the first comparison of successive halving at step {first:,}: give "
                     "another --workdir.") if halved else (
            last, f"the end of a run of {last:,} steps: train longer, or give another --workdir.")
        if (summary.get("steps") or 0) > end:
            raise UserError(f"{folder} has been trained to step {summary['steps']:,}, past {what}")

    def _with_overrides(self, trial: Trial) -> ConfigDict:
        config, effective = copy.deepcopy(self._config), self._effective(trial)
        for key, value in effective.items():
            section, _, name = key.rpartition(".")
            (config[section] if section else config)[name] = value
        config_lib.let_overrides_replace_units(config, effective)
        return config

    def _effective(self, trial: Trial) -> dict[str, Any]:
        return sweeps.effective(trial, self._overrides, self._trials_win)

    def _runs(self, wave: list[Trial]) -> list[Run]:
        return [Run(trial, seed, sweeps.folder_of(self._folder, trial.name, seed),
                    self._command(trial, seed)) for trial in wave for seed in self._seeds]

    def _command(self, trial: Trial, seed: int) -> tuple[str, ...]:
        folder = sweeps.folder_of(self._folder, trial.name, seed)
        return (sys.executable, str(_LAUNCH), f"--config={self._experiment}",
                f"--workdir={folder}",
                *(word(key, value, self._config) for key, value in self._effective(trial).items()),
                f"--config.seed={seed}", "--config.seeds=0")

    def _advance(self, runs: list[Run]) -> Callable[[Run], bool]:
        if not self._config.sweep.asha:
            return lambda run: False
        if self._halving is None:
            sweep = self._config.sweep
            self._halving = Halving(self._folder, sweep.asha_rungs, sweep.asha_reduction,
                                    lambda run: self._total_steps(run.trial))
        for run in runs:
            self._halving.start(run)
        return self._halving.advance

    def _total_steps(self, trial: Trial) -> int:
        from cnnjax.jobs.experiment import open_dataset  # Imports what trains, which takes a while.

        config = self._with_overrides(trial)
        which = tuple(config.data.values())
        if which not in self._examples:
            self._examples[which] = len(open_dataset(config).train.source)
        return config_lib.total_steps(config, self._examples[which])

    def _plain(self) -> bool | None:
        return {"plain": True, "bar": False}.get(self._config.log.progress)


def _real(experiment: str) -> tuple[str, str]:
    """Returns the file of FILE[:PRESET], whichever way leads to it, and the preset."""
    file, _, preset = experiment.partition(":")
    return os.path.realpath(file), preset


def word(key: str, value: Any, config: ConfigDict) -> str:
    """Returns "--config.key=value" as the command line reads it back."""
    section, _, name = key.rpartition(".")
    there = (config[section] if section else config).get(name)
    # An argument of a model that the config does not know yet is read as Python.
    python = key.startswith("model.") and name != "name" and not isinstance(there, str)
    return f"--config.{key}={repr(value) if python else value}"
