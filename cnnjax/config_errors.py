"""What was wrong with an experiment's file or with a value, in the user's words."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from absl import flags

from cnnjax import config as config_lib
from cnnjax.types import UserError, did_you_mean


def _stem(file: str) -> str:
    return Path(file).stem


def check_file(file: str) -> None:
    """Raises the error of an experiment that is not there, with those that are."""
    path = Path(file)
    if not path.is_file():
        folders = {path, path.parent, Path("experiments")}
        known = sorted(str(p) for folder in folders for p in folder.glob("*.py")
                       if p.name != "launch.py")
        raise UserError(f"There is no config file {file}.{did_you_mean(file, known, _stem)}"
                        + (f" There are: {', '.join(known)}." if known else ""))
    path.open().close()  # config_flags would keep the error to itself.


def explain(error: BaseException, path: str | None) -> str:
    """Returns what went wrong, and where in the experiment's file if it was there.

    config_flags wraps what a config file raises in an error of its own, with a traceback as text:
    the innermost error is the one to show.
    """
    chain = [error]
    while cause := chain[-1].__cause__ or (
            None if chain[-1].__suppress_context__ else chain[-1].__context__):
        chain.append(cause)
    for inner in reversed(chain):
        if isinstance(inner, UserError):
            return str(inner)
    file = path and path.partition(":")[0]
    for inner in reversed(chain):
        if isinstance(inner, SyntaxError):
            return f"{inner.filename}:{inner.lineno}: {inner.msg}"
        lines = [frame.lineno for frame in traceback.extract_tb(inner.__traceback__)
                 if file and Path(frame.filename).absolute() == Path(file).absolute()]
        if lines:
            return f"{file}:{lines[-1]}: {type(inner).__name__}: {inner}"
    if file and "has no attribute 'get_config'" in str(chain[-1]):
        return f"{file} is no experiment: it defines no get_config(preset)."
    if file and "get_config() takes 0 positional arguments" in str(chain[-1]):
        return f"The experiment {file} has no presets: leave out what follows the colon."
    if isinstance(error, flags.UnrecognizedFlagError):
        keys = config_lib.namesakes(error.flagname.replace("-", "_"))[:3]
        if keys:
            return (f"There is no flag --{error.flagname}. Did you mean "
                    + " or ".join(f"--config.{key}" for key in keys) + "?")
    if isinstance(error, KeyError):
        return " ".join(f"No such config key: {error.args[0]}".split())
    return _name_the_type(str(error))


def _name_the_type(message: str) -> str:
    """Returns the message of a value that did not parse, with what its key takes instead."""
    found = re.match(r"flag --config\.([\w.]+)=(.*?): ", message, re.DOTALL)
    defaults = config_lib.default()
    if not found or found[1] not in config_lib.flatten(defaults):
        return message
    section, _, name = found[1].rpartition(".")
    kind = (defaults[section] if section else defaults).get_type(name).__name__
    return f"{found[1]} is {found[2]!r}; it takes {'an' if kind == 'int' else 'a'} {kind}."
