"""The files of a run, and what may go on in a folder that another run has used."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax import config as config_lib
from cnnjax import files, sweeps
from cnnjax.jobs import hosts
from cnnjax.jobs.lock import Lock
from cnnjax.types import UserError

CONFIG, SUMMARY = sweeps.CONFIG, sweeps.SUMMARY
CHECKPOINTS = "checkpoints"
LOCK = ".training"
_PATIENCE = 10.0  # Seconds.


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a file that is either whole or not there; of several processes, the first does."""
    if hosts.is_first():
        files.write_json(path, values)


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the object in a file, or None if there is no such file.

    Raises:
      UserError: if the file is not JSON.
    """
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}. Move it away, or give another "
                        "--workdir.") from None
    return values


def check_writable(workdir: Path) -> None:
    """Creates the folder if need be.

    Raises:
      UserError: if nothing can be written there.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir) as file:
            file.write(bytes(1 << 16))  # An empty file fits on a full disk, too.
            file.flush()
    except (FileExistsError, NotADirectoryError):
        # The lowest that is there: a link to what is not there is one that `exists` denies.
        path = next(path for path in (workdir, *workdir.parents) if os.path.lexists(path))
        what = "a file" if path.exists() else "a link to what does not exist"
        raise UserError(f"The workdir {workdir} cannot be made: {path} is {what}. Give another: "
                        "--workdir=DIR.") from None
    except OSError as error:
        raise UserError(f"The workdir {workdir} cannot be written: {error.strerror}. "
                        "Make room, or give another: --workdir=DIR.") from None


@contextlib.contextmanager
def report_no_room(folder: Path) -> Iterator[None]:
    """Ends the block with a message where a file that a job writes has no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in files.NO_ROOM:
            raise
        print(f"Failed: {error.filename or folder} could not be written: {error.strerror}. "
              "Make room in, or give write access to, the workdir and run the same command to go "
              "on.", file=sys.stderr, flush=True)


@contextlib.contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
    """Has a second process that would train in the folder fail: it would damage what is there.

    Raises:
      UserError: if another trains there, and still does after a few seconds.
    """
    lock = Lock(workdir / LOCK)
    try:
        # Another may just be saving what it was asked to save.
        taken = not hosts.is_first() or lock.take(seconds=_PATIENCE)
    except OSError as error:
        raise UserError(f"{workdir / LOCK} cannot be written ({error.strerror}): it is another "
                        "user's, perhaps. Give another --workdir.") from None
    if not taken:
        raise UserError(f"Another process trains in {workdir}. Wait for its end, or give another "
                        "--workdir.")
    try:
        yield
    finally:
        lock.release()


def check_no_sweep(workdir: Path) -> None:
    """Raises a UserError if the folder is that of a sweep, whose runs lie in folders below it."""
    if (workdir / sweeps.SWEEP).exists():
        raise UserError(f"{workdir} holds a sweep, or several seeds of a run: give a run another "
                        "--workdir, or --config.seeds=N as before.")


def check_one_run(workdir: Path) -> None:
    """Raises a UserError if the folder is that of a sweep, for what looks at one run."""
    if (workdir / sweeps.SWEEP).exists():
        runs = sorted(path.parent for path in workdir.glob(f"**/{CONFIG}"))
        experiment = (read_json(workdir / sweeps.SWEEP) or {}).get("experiment", "FILE")
        raise UserError(f"{workdir} holds a sweep, or several seeds of a run. Give one of its runs"
                        + (f", such as --workdir={shlex.quote(str(runs[0]))}" if runs
                           else " (none has begun)")
                        + f"; or, to go on with all, --config={shlex.quote(experiment)} as before.")


def has_checkpoints(workdir: Path) -> bool:
    """Whether a finished checkpoint lies in a workdir, without waiting for Orbax."""
    folder = workdir / CHECKPOINTS
    return folder.is_dir() and any(path.name.isdecimal() for path in folder.iterdir())


def holds_run(workdir: Path) -> bool:
    """Whether a run has left something in a workdir: a checkpoint, or the summary of its end."""
    return has_checkpoints(workdir) or sweeps.is_over(read_json(workdir / SUMMARY))


def check_same_experiment(saved: Mapping[str, Any], config: ConfigDict, workdir: Path,
                          besides: tuple[str, ...] = ()) -> None:
    """Checks that a run with this config may go on from what a saved one has left.

    Args:
      saved: the config of that run, as `to_json` gave it.
      config: of this one.
      workdir: of both, for the message.
      besides: keys that may differ, besides those that always may.

    Raises:
      UserError: lists the differences that would make it another experiment, and what may differ.
    """
    allowed = (*config_lib.MAY_CHANGE_ON_RESUME, *besides)
    # A run from before there was a key did what is that key's default.
    old = config_lib.flatten(config_lib.default()) | config_lib.flatten(saved)
    new = config_lib.flatten(config)
    differing = [key for key in sorted(old.keys() | new.keys())
                 if old.get(key) != new.get(key) and not any(
                     key == name or (name.endswith(".") and key.startswith(name))
                     for name in allowed)
                 and not (key == "data.name" and _are_files(old.get(key), new.get(key)))
                 # The record of a checkpoint says whether it is the same teacher.
                 and not (key == "distill.weights" and None not in (old.get(key), new.get(key)))]
    if differing:
        lines = "\n".join(f"  {key}: {old.get(key)!r} there, {new.get(key)!r} here"
                          for key in differing)
        raise UserError(
            f"{workdir} holds another experiment:\n{lines}\n"
            "A run that goes on may change only its duration, evaluation, checkpoints and logging. "
            "Give another --workdir, or the values that are there.")


def _are_files(old: Any, new: Any) -> bool:
    """Whether both name data of one kind by a path, such as folder:PATH.

    Files may be moved. Whether they are the same is for the fingerprint to say.
    """
    kinds = [str(name).partition(":") for name in (old, new)]
    return kinds[0][0] == kinds[1][0] and all(found for _, found, _ in kinds)


def load_config(workdir: Path) -> ConfigDict:
    """Returns the config that a run was started with.

    Raises:
      UserError: if the folder holds no run, or those of a sweep.
    """
    saved = read_json(workdir / CONFIG)
    if saved is None:
        check_one_run(workdir)
        raise UserError(f"There is no run in {workdir}: it has no {CONFIG}. Train one with "
                        "python launch.py --config=FILE --workdir=DIR.")
    try:
        return from_json(saved)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{workdir / CONFIG} is no config of this version of cnnjax: {error}. "
                        "Name the experiment as well: --config=FILE.") from None


def from_json(saved: dict[str, Any]) -> ConfigDict:
    """Returns a config from the form in which a workdir keeps it."""
    config = config_lib.default()
    for section, values in saved.items():
        if not isinstance(values, dict):
            config[section] = values
            continue
        for key, value in values.items():
            # JSON has no tuples.
            config[section][key] = tuple(value) if isinstance(value, list) else value
    return config


def to_json(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as plain dictionaries, for config.json and the checkpoint's record."""
    return json.loads(json.dumps(config.to_dict()))
