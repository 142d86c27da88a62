"""One trial: a command in a folder, run to its end. What executors run, here or on a cluster.

This process waits beside the trial's own, so it imports neither JAX nor anything that does.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnjax import exit_codes, files, interrupts, sweeps
from cnnjax.jobs.lock import Lock, held

LOCK, JOB, STDOUT, STDERR = ".lock", ".job", "stdout.txt", "stderr.txt"
# A trial that stops again and again without having been asked to makes no headway.
_MOST_RESUMES = 100
_PATIENCE = 600.0  # Seconds, for a disk that is full.
_ASKED_AGAIN = (1, 5, 20, 20, 0)  # Seconds after which SLURM is, as in slurm.sh.


@dataclasses.dataclass
class Task:
    """What there is to run.

    Attributes:
      command: words of the trial's process.
      folder: its workdir, where trial.json and its output go.
      cwd: where the command runs.
      retries: how often it may fail and be tried again.
      cores: CPU cores it may use; () leaves them.
      environment: variables to set.
      watch: the sweep's lock file: when nobody holds it, the trial saves and stops. None: it goes
        on without the sweep, as on a cluster.
    """

    command: tuple[str, ...]
    folder: Path
    cwd: Path
    retries: int = 0
    cores: tuple[int, ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    watch: Path | None = None

    def __call__(self) -> str:
        """Runs the trial, and returns its state: done, failed, or waiting if it was stopped."""
        state = _Runner(self).run()
        if state == "waiting" and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            _requeue()
        return state

    def checkpoint(self):
        """Stops the trial, which saves; submitit calls this near a job's end, and requeues it."""
        from submitit.helpers import DelayedSubmission

        if _Runner.current:
            _Runner.current.stop()
        return DelayedSubmission(self)


def read(folder: Path) -> dict[str, Any]:
    """Returns what trial.json holds, {} if there is none or it is damaged."""
    return sweeps.json_in(folder / sweeps.TRIAL) or {}


def update(folder: Path, **values: Any) -> dict[str, Any]:
    """Changes some of what trial.json holds, and returns all of it."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"state": "waiting", "attempts": 0, "failures": 0, "seconds": 0.0,
              "message": ""} | read(folder) | values
    files.write_json(folder / sweeps.TRIAL, values)
    return values


def finished(folder: Path, command: tuple[str, ...]) -> bool:
    """Returns whether this command has been run to its end in the folder."""
    state = read(folder)
    # The interpreter may be another's.
    return state.get("state") == "done" and state.get("command", [])[1:] == list(command[1:])


def note_job(folder: Path, job_id: str) -> None:
    """Writes which job of a cluster has the trial: beside trial.json, which that job writes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JOB).write_text(job_id)


def job_id(folder: Path) -> str:
    """Returns what `note_job` wrote last, "" if nothing."""
    try:
        return (folder / JOB).read_text()
    except OSError:
        return ""


def _requeue() -> None:
    """Puts this job of SLURM, which was told to stop as for a preemption, back into the queue.

    Not if somebody cancelled it, nor if SLURM itself has requeued it. A controller that does not
    answer, where many jobs are preempted at once, is asked again.
    """
    from submitit import JobEnvironment

    job = JobEnvironment().job_id  # One task's, where SLURM_JOB_ID may be that of the whole array.
    for seconds in _ASKED_AGAIN:
        asked = subprocess.run(["squeue", "--noheader", f"--job={job}", "--format=%T"],
                               capture_output=True, text=True)
        if asked.returncode == 0 and (asked.stdout.strip() != "RUNNING" or subprocess.run(
                ["scontrol", "requeue", job]).returncode == 0):
            return
        time.sleep(seconds)


class _Runner:
    """A task under way."""

    current: _Runner | None = None

    def __init__(self, task: Task):
        self._task, self._process, self._asked = task, None, False
        self._began, self._seconds = time.monotonic(), 0.0  # Of the attempt; of those before it.

    def run(self) -> str:
        task, lock = self._task, Lock(self._task.folder / LOCK)
        # A sweep that was killed and started again may have submitted it twice.
        if not lock.take(seconds=2.0):
            return "held by another process"
        _Runner.current = self
        try:
            if finished(task.folder, task.command):
                return "done"
            if task.cores and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, task.cores)
            with interrupts.listening(lambda number, frame: self._ask()):
                return self._run_until_settled(lock)
        finally:
            _Runner.current = None
            lock.release()

    def stop(self, wait: float = 600.0) -> None:
        """Asks the trial to save and stop, and waits for that."""
        self._ask()
        until = time.monotonic() + wait
        # Not Popen.wait: this runs in a signal handler, perhaps in the middle of that.
        while self._process and time.monotonic() < until and not os.waitid(
                os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            time.sleep(0.05)
        self._note(state="waiting", pid=None, message="out of time, and requeued",
                   seconds=round(self._seconds + time.monotonic() - self._began, 3))

    def _ask(self) -> None:
        self._asked = True
        if self._process and self._process.returncode is None:
            self._process.terminate()

    def _run_until_settled(self, lock: Lock) -> str:
        task, resumes = self._task, 0
        state = read(task.folder)
        while not self._asked:
            code, seconds, message = self._attempt(lock, state)
            state = self._note(pid=None, exit_code=code,
                           seconds=round(state.get("seconds", 0.0) + seconds, 3))
            if code == 0:
                return self._note(state="done", message="")["state"]
            if self._asked:
                break
            if code == exit_codes.PREEMPTED and resumes < _MOST_RESUMES:
                resumes += 1
                continue
            state = self._note(failures=state["failures"] + 1, message=message)
            # From the same checkpoint on a loss that was not finite is so again.
            hopeless = code == exit_codes.USER_ERROR or sweeps.diverged(task.folder)
            if hopeless or state["failures"] > task.retries:
                return self._note(state="failed")["state"]
        return self._note(state="waiting", pid=None, message="stopped")["state"]

    def _note(self, **values: Any) -> dict[str, Any]:
        """Updates trial.json. Where there is no room it waits for some, unless asked to stop."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return update(self._task.folder, **values)
            except OSError as error:
                if error.errno not in files.NO_ROOM or time.monotonic() >= until:
                    raise
                if self._asked:  # What it was before, without a process, is tried again, too.
                    return read(self._task.folder) | values
            time.sleep(0.5)

    def _attempt(self, lock: Lock, state: Mapping[str, Any]) -> tuple[int, float, str]:
        """Returns exit code, seconds, and the end of what the trial said on stderr."""
        task, began = self._task, time.monotonic()
        self._began, self._seconds = began, state.get("seconds", 0.0)
        self._note(state="running", attempts=state.get("attempts", 0) + 1,
                   command=list(task.command), host=socket.gethostname(), pid=os.getpid(),
                   started=round(time.time(), 3), message="")
        if sweeps.diverged(task.folder):  # Earlier. What ends this attempt may be something else.
            (task.folder / sweeps.SUMMARY).unlink()
        with (task.folder / STDOUT).open("ab") as out, (task.folder / STDERR).open("ab") as err:
            said = err.tell()
            self._process = subprocess.Popen(
                task.command, cwd=task.cwd, env=os.environ | dict(task.environment), stdout=out,
                stderr=err, stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the sweep, which asks the trials to stop.
                pass_fds=(lock.descriptor,))  # Held as long as either of the two lives.
            if self._asked:  # Before there was a process to tell.
                self._ask()
            while True:
                try:
                    code = self._process.wait(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    if task.watch and not self._asked and not held(task.watch):
                        self._ask()
        return code, time.monotonic() - began, tail(task.folder / STDERR, said) or _silent(code)


def _silent(code: int) -> str:
    """Returns what there is to say of a process that ended without a word."""
    if code == -signal.SIGKILL:
        return "killed, as a machine does that runs out of memory: try fewer at a time"
    return f"ended by signal {-code}" if code < 0 else f"exit code {code}, without a message"


def tail(path: Path, start: int = 0, most: int = 2000) -> str:
    """Returns the last characters of a file, from whole lines after byte `start`."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - most))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    if size - most > start:
        text = text.partition("\n")[2]
    return text.strip()
