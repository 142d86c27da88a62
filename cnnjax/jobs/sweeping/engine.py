"""Which trial runs next, and what becomes of one that ended."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from cnnjax import files
from cnnjax.jobs.lock import held
from cnnjax.jobs.sweeping import executors, trial
from cnnjax.sweeps import Trial


@dataclasses.dataclass(eq=False)
class Run:
    """One trial with one seed.

    Attributes:
      trial: what it is a run of.
      seed: its seed.
      folder: its workdir.
      command: the words of its process; `Engine.advance` may change them.
    """

    trial: Trial
    seed: int
    folder: Path
    command: tuple[str, ...]

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.trial.name}/seed_{self.seed}".lstrip("/")


@dataclasses.dataclass
class Engine:
    """Runs what is not done yet.

    Attributes:
      executor: where.
      retries: how often a trial may fail and be tried again.
      cwd: where commands run.
      watch: the lock file that this sweep holds.
      show: called with every run and those under way, again and again.
      should_stop: asked again and again; True asks the trials to save and stop.
      advance: called with a run that is done; True if it has a further stage, whose command the run
        now holds.
      poll: seconds between two looks.
    """

    executor: Any
    cwd: Path
    retries: int = 0
    watch: Path | None = None
    show: Callable[[Sequence[Run], Collection[Run]], None] = lambda runs, active: None
    should_stop: Callable[[], bool] = lambda: False
    advance: Callable[[Run], bool] = lambda run: False
    poll: float = 0.25
    _told: bool = dataclasses.field(default=False, init=False)
    # Of a run that was submitted, before it was.
    _attempts: dict[Run, int] = dataclasses.field(default_factory=dict, init=False)

    def run(self, runs: Sequence[Run]) -> bool:
        """Returns when every run is done or has failed: True; False if it was asked to stop."""
        waiting, active = self._take_stock(runs)
        while waiting or active:
            if self.should_stop():
                if self.executor.detached:
                    return False
                waiting.clear()
                for job in active.values():
                    job.stop()
            with self._patience():
                self._submit(waiting, active)
            for run, job in list(active.items()):
                if job.ended():
                    with self._patience():
                        self._settle(run, waiting, active)
                    if self.should_stop() and active.get(run) is job:
                        del active[run]  # What had no room is seen to at the next start.
            self.show(runs, active)
            if waiting or active:
                time.sleep(self.poll)
        return not self.should_stop()

    def _take_stock(self, runs: Sequence[Run]) -> tuple[collections.deque[Run], dict[Run, Any]]:
        waiting, active = collections.deque(), {}
        for run in runs:
            state = trial.read(run.folder)
            if trial.finished(run.folder, run.command):
                if self.advance(run):
                    waiting.append(run)
            elif held(run.folder / trial.LOCK):
                active[run] = executors.Adopted(run.folder)
            elif job := self.executor.find(trial.job_id(run.folder)):
                active[run] = job
            else:
                if state:  # A new call of the command tries afresh what failed before.
                    trial.update(run.folder, state="waiting", failures=0, message="")
                waiting.append(run)
        return waiting, active

    def _submit(self, waiting: collections.deque[Run], active: dict[Run, Any]) -> None:
        batch = [waiting.popleft()
                 for _ in range(min(len(waiting), self.executor.free(len(active))))]
        if not batch:
            return
        watch = None if self.watch is None or self.executor.detached else self.watch.absolute()
        for run in batch:
            self._attempts[run] = trial.read(run.folder).get("attempts", 0)
        tasks = [trial.Task(run.command, run.folder.absolute(), self.cwd, self.retries,
                            watch=watch) for run in batch]
        try:
            for run, job in zip(batch, self.executor.submit(tasks), strict=True):
                active[run] = job
        finally:
            waiting.extendleft(run for run in reversed(batch) if run not in active)
        if self.executor.detached:
            for run in batch:
                trial.note_job(run.folder, active[run].id)

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        """Leaves to the next look what there is no room for on the disk, and says so once."""
        try:
            yield
        except OSError as error:
            if error.errno not in files.NO_ROOM:
                raise
            if not self._told:
                print(f"Warning: the sweep cannot write: {error.strerror}. It goes on when there "
                      "is room.", file=sys.stderr, flush=True)
            self._told = True

    def _settle(self, run: Run, waiting: collections.deque[Run], active: dict[Run, Any]) -> None:
        """Decides what becomes of a run whose job has ended; it stays active if that fails."""
        if held(run.folder / trial.LOCK):
            active[run] = executors.Adopted(run.folder)
            return
        state = trial.read(run.folder)
        if trial.finished(run.folder, run.command):
            again = self.advance(run)
        elif state.get("state") == "failed" or self.should_stop():
            again = False
        elif (state.get("state") in ("waiting", "done")
                and state.get("attempts", 0) > self._attempts.get(run, 0)):
            # Somebody stopped it, and it saved. Or an earlier session asked for something else.
            again = True
        else:
            again = self._lost(run, state, active[run])
        del active[run]
        if again:
            waiting.append(run)

    def _lost(self, run: Run, state: dict[str, Any], job: Any) -> bool:
        """Counts a failure that nobody has; returns whether the run is to be tried again."""
        failures = state.get("failures", 0) + 1
        again = failures <= self.retries
        why = job.why() if hasattr(job, "why") else ""
        trial.update(run.folder, failures=failures, state="waiting" if again else "failed",
                     pid=None, message=why or "its process was killed, or never began")
        return again
