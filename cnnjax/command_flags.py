"""The flags of `launch.py`: from the words of a command to what they ask for."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from cnnjax import config as config_lib
from cnnjax import sweeps
from cnnjax.config_errors import check_file, explain
from cnnjax.files import expanded
from cnnjax.jobs import JOBS
from cnnjax.types import UserError, did_you_mean

# Jobs that need no experiment if a model and its weights are named.
_STANDALONE = ("evaluate", "predict", "export", "visualize")
# Short for --config.KEY; the second is what they go with, None being every job.
_SHORT = {"images": ("{job}.images", ("predict", "visualize")), "weights": ("weights.path", None),
          "model": ("model.name", _STANDALONE), "executor": ("sweep.executor", ("sweep", "train")),
          "what": ("summarize.what", ("summarize",))}
WITHOUT_CONFIG = ("report",)  # It reads runs, each of which has its own.


@dataclasses.dataclass(frozen=True)
class Command:
    """What a command line asks for."""

    job: str
    config: ConfigDict
    workdir: Path
    dry_run: bool
    experiment: str | None = None  # FILE[:PRESET], None if the workdir or --model gave the config.
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Compare:
    """What --models asks for: a comparison of the models that match. Or how one of them scales."""

    models: str | None
    scaling: bool = False
    config: ConfigDict | None = None


def parse(argv: Sequence[str]) -> Command | Compare:
    """Returns the command, its config not yet validated.

    Raises:
      UserError: for a flag, a file, a preset or a value that cannot be.
    """
    # The values belong to this call: absl's global FLAGS can be parsed only once in a process.
    values = flags.FlagValues()
    flags.DEFINE_string("job", "train", "", flag_values=values)
    for name in ("dry_run", "scaling"):
        flags.DEFINE_boolean(name, False, "", flag_values=values)
    # The short ones are replaced below, but a misspelt one should find them.
    for name in ("workdir", "models", *_SHORT):
        flags.DEFINE_string(name, None, "", flag_values=values)
    path, folder = _argument(argv, "config"), _argument(argv, "workdir")
    if folder and re.match(r"\w[\w.+-]*://", folder):
        raise UserError(f"--workdir={folder} is an address; a run locks and renames files in a "
                        "folder. Mount what is there, and give the path: --workdir=/mnt/runs/NAME.")
    folder = folder and os.path.expanduser(folder)  # The shell does it for DIR, not for --x=DIR.
    job, model = _argument(argv, "job") or "train", _argument(argv, "model")
    argv, unset = _without_nones(_in_full(argv, job))
    config = _config_without_file(job, model, folder) if path is None else None
    _define_config(values, argv, path, config)
    try:
        rest = values(list(argv))[1:]
    except Exception as error:  # Whatever the experiment's own code may raise, too.
        if getattr(error, "flagname", "").startswith("config."):  # A flag, if there were a config.
            raise _no_config(job) from error
        raise UserError(explain(error, path)) from error
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag. Flags are written --name=value.")
    if values.job not in JOBS:
        raise UserError(f"There is no job {values.job!r}.{did_you_mean(values.job, JOBS)} "
                        f"The jobs: {', '.join(JOBS)}.")
    config = values.config
    if compare := _comparison(values, config):
        return compare
    if config is None:
        raise _no_config(job)
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config of {path} returned {config!r}, not a ConfigDict.")
    for key in unset:
        section, _, name = key.rpartition(".")
        (config[section] if section else config)[name] = None
    config_lib.let_overrides_replace_units(config, values["config"].override_values)
    folder = Path(folder or _default_workdir(path, job, model))
    return Command(values.job, config, folder, values.dry_run, path,
                   {**values["config"].override_values, **dict.fromkeys(unset)})


def _config_without_file(job: str, model: str | None, folder: str | None) -> ConfigDict | None:
    """Returns what stands for an experiment's file: the run in a workdir, or the defaults.

    Raises:
      UserError: if the job reads runs and no folder is named, or the folder holds no run.
    """
    if job in WITHOUT_CONFIG:
        if folder is None:
            raise UserError(f"Say which sweep or folder of runs: --job={job} --workdir=DIR.")
        return config_lib.default()
    if job in _STANDALONE and model and not holds_run(folder):
        config = config_lib.default()
        config.train.steps = 1  # Nothing trains, and a config has a length.
        return config
    if folder is None:
        return None
    from cnnjax.jobs import workdir

    return workdir.load_config(Path(folder))


def _no_config(job: str) -> UserError:
    return UserError("No config: say which experiment, such as --config=experiments/resnet50.py" + (
        ", or which model, such as --model=resnet50 --weights=resnet50.pth."
        if job in _STANDALONE else "."))


def _comparison(values: flags.FlagValues, config: ConfigDict | None) -> Compare | None:
    """Returns what --models and --scaling ask for, if either is there."""
    for name in ("models", "scaling"):
        if values[name].value and values.job != "summarize":
            raise UserError(f"--{name} goes with --job=summarize, not with --job={values.job}.")
    if values.scaling and values.models is None and config is None:
        raise UserError("--scaling of which network? Say --config=FILE or --models=NAME.")
    if values.scaling or values.models is not None:
        return Compare(values.models, values.scaling, config)
    return None


def _define_config(values: flags.FlagValues, argv: Sequence[str], path: str | None,
                   config: ConfigDict | None) -> None:
    """Defines --config and its overrides: of a file, of a config that is there, or of neither."""
    options = dict(lock_config=False, flag_values=values, accept_new_attributes=True,
                   sys_argv=list(argv))
    if config is not None:
        config_flags.DEFINE_config_dict("config", config, "", **options)
        return
    if path is not None:
        check_file(path.partition(":")[0])
        # config_flags would load a second file on top of the first one's names.
        sys.modules.pop("config_config", None)
    config_flags.DEFINE_config_file("config", None, "", **options)


def holds_run(folder: str | None) -> bool:
    """Whether a folder is the workdir of a run."""
    return folder is not None and (expanded(folder) / sweeps.CONFIG).exists()


def _in_full(argv: Sequence[str], job: str) -> list[str]:
    """Returns the words with --images=X as --config.predict.images=X, and so on.

    Raises:
      UserError: if a short flag stands with a job that has no use for it, or without a value.
    """
    words, in_full, short = [], [], None  # Those in full go behind --config, wherever they stood.
    for word in argv:
        name, equals, value = word.lstrip("-").partition("=")
        if short is not None:
            in_full.append(f"--config.{_SHORT[short][0].format(job=job)}={word}")
            short = None
            continue
        if not word.startswith("-") or name not in _SHORT:
            words.append(word)
            continue
        key, jobs = _SHORT[name]
        if jobs is not None and job not in jobs:
            raise UserError(f"--{name} goes with --job={' and --job='.join(jobs)}, not with "
                            f"--job={job}." + (" The others take --config.model.name=NAME, and "
                                               "--job=summarize takes --models=PATTERN."
                                               if name == "model" else ""))
        if equals:
            in_full.append(f"--config.{key.format(job=job)}={value}")
        else:
            short = name
    if short is not None:
        raise UserError(f"--{short} has no value: write --{short}=VALUE.")
    return words + in_full


def _default_workdir(path: str | None, job: str, model: str | None) -> Path:
    if path is None:  # Only a model that is named has no folder of its own.
        return Path("runs") / f"{job}-{model}"
    file, _, preset = path.partition(":")
    return Path("runs") / (Path(file).stem + (f"-{preset}" if preset else ""))


def _without_nones(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the words without --config.KEY=None, which absl cannot parse, and those keys.

    Raises:
      UserError: if a key cannot be None, or an override is of a whole section.
    """
    words, unset, defaults = [], [], config_lib.default()
    known = config_lib.flatten(defaults)
    for word in argv:
        found = re.fullmatch(r"--?config\.([\w.]+)=(.*)", word, re.DOTALL)
        if found and found[1] in defaults and found[1] not in known:
            raise UserError(f"{found[1]} is a section of the config. Its keys: " + ", ".join(
                key for key in known if key.startswith(found[1] + ".")))
        if not found or found[2] != "None":
            words.append(word)
        elif found[1].startswith("model.") and found[1] != "model.name" or (
                found[1] in known and config_lib.may_be_none(found[1])):
            unset.append(found[1])
        else:
            raise UserError(f"{found[1]} cannot be None.")
    return words, unset


def _argument(argv: Sequence[str], flag: str) -> str | None:
    """Returns the value of --flag, the last one if there are several."""
    found = None
    for i, word in enumerate(argv):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name == flag:
            found = value if equals else (argv[i + 1] if i + 1 < len(argv) else None)
    return found


def prepare_command(argv: Sequence[str]) -> str:
    """Returns the command that prepares the data set of another command."""
    words, is_value = [], False
    for word in argv[1:]:
        name, equals, _ = word.lstrip("-").partition("=")
        if is_value:
            is_value = False
        elif word.startswith("-") and name in ("job", "workdir", "dry_run", *_SHORT):
            is_value = not equals and name != "dry_run"
        else:
            words.append(word)
    folder = _argument(argv, "workdir")
    if _argument(argv, "config") is None:  # It was that of a run, or a model's, which any will do.
        words.insert(0, f"--workdir={folder}" if holds_run(folder)
                     else "--config=experiments/simple_cnn.py")
    return shlex.join(["python", "launch.py", "--job=prepare", *words])
