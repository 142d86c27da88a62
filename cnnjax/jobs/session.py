"""One session of a run, from a start to a stop: what it writes, prints and saves meanwhile."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from cnnjax import garbage, interrupts
from cnnjax.checkpoint import Checkpoints, warn
from cnnjax.jobs import console, hosts, record, resume, run_summary
from cnnjax.jobs.experiment import Experiment
from cnnjax.train import loop
from cnnjax.train.state import TrainState
from cnnjax.train.writers import MetricsWriter


class Session:
    """Takes what `loop.fit` measures to metrics.jsonl, the terminal and the checkpoints.

    A context manager: at its end the first two are closed.

    Args:
      experiment: of the run.
      folder: the workdir.
      checkpoints: those in it.
      start: where the session begins.
    """

    def __init__(self, experiment: Experiment, folder: Path, checkpoints: Checkpoints,
                 start: resume.Start):
        self._experiment, self._folder = experiment, folder
        self._checkpoints, self._start = checkpoints, start
        self._record = record.describe(experiment, start.weights) | {
            "rollbacks": start.rollbacks}
        self._rates: list[float] = []
        self._saved: dict[str, float] = {}  # The values of the last save, whether it failed or not.
        self._writer = None
        config = experiment.config
        with contextlib.ExitStack() as closing:
            if hosts.is_first():
                self._writer = MetricsWriter(folder, start.recorded, config.log.tensorboard, warn)
                closing.callback(self._writer.close)
            self._display = console.Display(config.log.progress, experiment.schedule.stop,
                                            start.step, config.train.batch_size)
            closing.callback(self._display.close)
            self._closing = closing.pop_all()
        self._began = time.perf_counter()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *of_error) -> None:
        self._closing.close()

    @property
    def seconds(self) -> float:
        """What the run has taken so far, in all sessions."""
        return self._start.seconds + time.perf_counter() - self._began

    def hooks(self, should_stop: Callable[[], bool]) -> loop.Hooks:
        """Returns what the loop calls, but for the evaluation, which each phase has of its own."""
        return loop.Hooks(on_step=self._on_step, on_record=self._on_record, evaluate=None,
                          save=self._save, should_stop=should_stop)

    def new_phase(self) -> None:
        """Forgets the throughput so far: a run's is that of its last phase."""
        self._rates.clear()

    def save_again(self, state: TrainState) -> None:
        """Saves the last state, which was not saved, with what was measured of it."""
        self._save(int(state.step), state, self._saved)

    def summarize(self, state: TrainState) -> None:
        """Writes and prints the summary of the run that has ended with this state, saved."""
        run_summary.write(
            self._record | {"checkpoint_errors": self._checkpoints.errors}, self._folder, state,
            self._experiment, self._checkpoints.record(int(state.step))["metrics"], self.seconds,
            statistics.median(self._rates) if self._rates else None)

    def _on_step(self, step: int) -> None:
        interrupts.hold()  # From the first step on there is something to save.
        self._display.step(step)

    def _on_record(self, step: int, values: dict[str, float]) -> None:
        experiment = self._experiment
        if step == self._start.step:
            values |= self._start.logged | values
        seen = step * experiment.config.train.batch_size
        values |= {"epoch": seen / len(experiment.dataset.train.source),
                   "lr": experiment.learning_rate(max(0, step - 1)), "seconds": self.seconds}
        if "images_per_second" in values:
            self._rates.append(values["images_per_second"])
        if self._writer:
            self._writer.write(step, values)
        self._display.record(step, values)
        self._checkpoints.check()
        garbage.look()  # The first time takes a tenth of a second, so not before the first line.

    def _save(self, step: int, state: TrainState, values: dict[str, float]) -> None:
        self._saved = values
        if step == self._start.step:
            self._checkpoints.replace(step)
        self._checkpoints.save(step, state, self._record | {
            "checkpoint_errors": self._checkpoints.errors,
            "metrics": values | {"step": step, "seconds": self.seconds}})
