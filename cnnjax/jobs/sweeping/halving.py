"""Successive halving: trials are compared early, and only the better ones go on.

Asynchronous successive halving (ASHA: Li et al. 2018, arXiv:1810.05934, algorithm 2), as Optuna's
pruner decides it: a trial that reaches a rung goes on if it is among the best 1/reduction of those
that have reached it so far. The first to come therefore always do. One that is told to stop is not
taken up again, where the paper promotes it later if enough others turn out worse.

A trial stops at a rung by `train.stop_after_steps`, so its learning-rate schedule is that of the
whole run, and it resumes from its checkpoint when it goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnjax import sweeps
from cnnjax.jobs.sweeping import trial as trial_lib
from cnnjax.jobs.sweeping.engine import Run
from cnnjax.types import UserError

JOURNAL = "optuna.log"


class Halving:
    """The rungs of a sweep. What was decided is in the sweep's folder, in Optuna's own format.

    Args:
      folder: of the sweep.
      rungs: how often a trial is compared before its end: after 1/reduction^rungs of its steps, and
        then each `reduction` times later.
      reduction: of so many trials one goes on.
      total_steps: the length of a run.

    Raises:
      UserError: if Optuna is not installed.
    """

    def __init__(self, folder: Path, rungs: int, reduction: int,
                 total_steps: Callable[[Run], int]):
        try:
            import optuna
        except ImportError:
            raise UserError("sweep.asha needs Optuna: pip install -e '.[search]'.") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._rungs, self._reduction = optuna, rungs, reduction
        self._total_steps = total_steps
        storage = optuna.storages
        self._study = optuna.create_study(
            study_name="sweep", direction="maximize", load_if_exists=True,
            storage=storage.JournalStorage(
                storage.journal.JournalFileBackend(str(folder / JOURNAL))),
            pruner=optuna.pruners.SuccessiveHalvingPruner(
                min_resource=1, reduction_factor=reduction, min_early_stopping_rate=0))
        self._trials = {frozen.user_attrs["name"]: optuna.trial.Trial(
            self._study, frozen._trial_id) for frozen in self._study.get_trials(deepcopy=False)
            if "name" in frozen.user_attrs}
        self._whole: dict[Run, tuple[str, ...]] = {}
        self._rung: dict[Run, int] = {}  # To which its command leads.

    def start(self, run: Run) -> None:
        """Gives a run the command of the rung to which it has got."""
        self._whole[run] = run.command
        if run.name not in self._trials:
            self._trials[run.name] = self._study.ask()
            self._trials[run.name].set_user_attr("name", run.name)
        frozen = self._frozen(run)
        reached = len(frozen.intermediate_values)
        if frozen.state == self._optuna.trial.TrialState.PRUNED:
            reached -= 1
        elif not frozen.state.is_finished() and reached and self._trials[run.name].should_prune():
            self._stop(run, reached - 1)  # The sweep was killed before it had asked.
            reached -= 1
        self._set_command(run, reached)

    def advance(self, run: Run) -> bool:
        """Reports what a run has reached; returns whether it goes on, with a new command.

        Where there was no room for one of the notes of this it may be called again.
        """
        trial, frozen = self._trials[run.name], self._frozen(run)
        if frozen.state.is_finished():
            if (frozen.state == self._optuna.trial.TrialState.PRUNED
                    and not trial_lib.read(run.folder).get("stopped_early")):
                self._note(run, len(frozen.intermediate_values) - 1)  # There was no room for it.
            return False
        top1 = json.loads((run.folder / sweeps.SUMMARY).read_text())["top1"]
        rung = self._rung[run]
        if rung == self._rungs:
            self._study.tell(trial, top1)
            return False
        if self._reduction**rung not in frozen.intermediate_values:
            trial.report(top1, step=self._reduction**rung)
        if trial.should_prune():
            self._stop(run, rung)
            return False
        self._set_command(run, rung + 1)
        return True

    def _frozen(self, run: Run) -> Any:
        return self._study.get_trials(deepcopy=False)[self._trials[run.name].number]

    def _stop(self, run: Run, rung: int) -> None:
        self._study.tell(self._trials[run.name], state=self._optuna.trial.TrialState.PRUNED)
        self._note(run, rung)

    def _note(self, run: Run, rung: int) -> None:
        trial_lib.update(run.folder, stopped_early=True,
                         message=f"stopped early, at step {self._steps(run, rung):,}")

    def _steps(self, run: Run, rung: int) -> int:
        return max(1, self._total_steps(run) // self._reduction ** (self._rungs - rung))

    def _set_command(self, run: Run, rung: int) -> None:
        run.command, self._rung[run] = self._whole[run], rung
        if rung < self._rungs:
            run.command += (f"--config.train.stop_after_steps={self._steps(run, rung)}",)
