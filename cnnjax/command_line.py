"""`python launch.py …`: from the words of a command to a job, and from errors to exit codes."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from cnnjax import config as config_lib
from cnnjax import exit_codes
from cnnjax.config_errors import check_file, explain
from cnnjax.files import expanded
from cnnjax.jobs import JOBS
from cnnjax.types import Failure, UserError, did_you_mean
from cnnjax.validation import validate

USAGE = f"""\
usage: python launch.py --config=FILE[:PRESET] [--job=JOB] [--workdir=DIR] [--dry_run]
                        [--config.KEY=VALUE ...]
       python launch.py --job=summarize --models=PATTERN [--scaling]
       python launch.py --job=summarize --config=FILE --what=data
       python launch.py --job=predict --workdir=DIR --images=FOLDER
       python launch.py --job=predict --model=NAME --weights=FILE --images=FOLDER
                        or --job=visualize with the same
       python launch.py --job=export  --model=NAME --weights=FILE
       python launch.py --job=evaluate --model=NAME --weights=FILE --config.data.name=DATA
       python launch.py --job=report  --workdir=SWEEP

Try: python launch.py --config=experiments/resnet50.py

  --config=FILE[:PRESET]  an experiment, such as experiments/lenet5.py:mnist
  --config.KEY=VALUE      overrides a key of it, such as --config.train.epochs=3
  --job=JOB               one of:
{chr(10).join(f"    {name:<22}{what}" for name, what in JOBS.items())}
  --workdir=DIR           of the run; default runs/<experiment>[-<preset>]. Where a run has been,
                          this alone says which experiment
  --dry_run               does everything up to the first step, and writes nothing but the index
                          of tar files
  --models=PATTERN        with --job=summarize: compares the models whose names match, such as
                          'resnet*' or '*', and needs no config
  --what=data             with --job=summarize and a config: the images instead of the model
  --scaling               with --job=summarize and a config or --models=NAME: how it scales
  --images=PATH           with predict and visualize: a folder of images, or one; without it the
                          evaluation split is taken
  --model=NAME            with evaluate, predict, visualize and export: the model of pretrained
                          weights, such as resnet50; needs no config
  --weights=PATH          of that model: a .safetensors or .pth file, a workdir, or a hub id
  --executor=WHERE        with --job=sweep: local (this machine), slurm or ray
  --help                  this text

Exit codes: 0 done, 1 failed, 2 wrong input, 75 stopped and saved (the same command goes on).
"""


# Jobs that need no experiment if a model and its weights are named.
_STANDALONE = ("evaluate", "predict", "export", "visualize")
# Short for --config.KEY; the second is what they go with, None being every job.
_SHORT = {"images": ("{job}.images", ("predict", "visualize")), "weights": ("weights.path", None),
          "model": ("model.name", _STANDALONE), "executor": ("sweep.executor", ("sweep", "train")),
          "what": ("summarize.what", ("summarize",))}
_WITHOUT_CONFIG = ("report",)  # It reads runs, each of which has its own.


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


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code; a user's mistake is one message, no traceback."""
    if any(word in ("--help", "-help", "-h", "--helpfull", "--helpshort") for word in argv[1:]):
        print(USAGE)
        return exit_codes.DONE
    if len(argv) < 2:
        print(USAGE, file=sys.stderr)
        return exit_codes.USER_ERROR
    try:
        return _run(parse(argv), lambda error: _with_command(error, argv))
    except UserError as error:
        print(f"launch.py: {_with_command(error, argv)}", file=sys.stderr)
        return exit_codes.USER_ERROR
    except Failure as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return exit_codes.FAILED
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            said = (f"The path {error.filename} is too long: a name has at most 255 bytes, and a "
                    "whole path 4,095. Give a shorter one.")
        elif isinstance(error, PermissionError) and error.filename:
            said = (f"{error.filename}: {error.strerror}. Change the permissions of it and of its "
                    "folder, or name another.")
        else:
            raise
        print(f"launch.py: {said}", file=sys.stderr)
        return exit_codes.USER_ERROR
    except KeyboardInterrupt:
        print("launch.py: interrupted; the last checkpoint stays", file=sys.stderr)
        return exit_codes.FAILED


def _with_command(error: UserError, argv: Sequence[str]) -> UserError:
    """Returns the error; if it is that a data set is absent, with the command that prepares it."""
    from cnnjax.data import NotPrepared

    if not isinstance(error, NotPrepared):
        return error
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
        words.insert(0, f"--workdir={folder}" if _holds_run(folder)
                     else "--config=experiments/simple_cnn.py")
    return NotPrepared(error.name, error.data_dir, reason=error.reason,
                       command=shlex.join(["python", "launch.py", "--job=prepare", *words]))


def _run(command: Command | Compare, message_of: Callable[[UserError], UserError]) -> int:
    from cnnjax import jobs
    from cnnjax.jobs import backend, hosts, launches

    launch = launches.find_launch(os.environ)
    if isinstance(command, Compare):
        from cnnjax.jobs import summarize

        if launch and launch.process:  # One is enough.
            return exit_codes.DONE
        return (summarize.run_scaling(command.models, command.config) if command.scaling
                else summarize.run_comparison(command.models))
    if command.job not in _WITHOUT_CONFIG:
        _check_own_model(command)
        validate(command.config)
    sweeps = command.job == "sweep" or (command.job == "train" and command.config.seeds)
    if launch and (sweeps or command.job not in jobs.ON_MANY_HOSTS):
        if launch.process:
            return exit_codes.DONE
        # And what it starts is alone.
        launch, os.environ[launches.COUNT], os.environ[launches.INDEX] = None, "1", "0"
    if command.job in _WITHOUT_CONFIG:
        return jobs.run(command.job, command.config, command.workdir, command.dry_run)
    if sweeps:
        from cnnjax.jobs import sweep

        return sweep.run(command.config, command.workdir, command.dry_run, command.experiment,
                         command.overrides, named=command.job == "sweep")
    if command.config.deterministic:
        backend.make_deterministic()  # XLA reads its flags when the backend starts.
    if launch:
        hosts.join(launch, stops_together=command.job == "train")
    with (hosts.or_all_end(message_of), hosts.one_voice(),
          backend.explaining_no_memory(command.job)):
        if command.job != "prepare":  # It computes nothing, and needs no accelerator.
            if not command.dry_run:
                backend.use_compilation_cache()
            if warning := backend.unused_accelerator():
                print(f"launch.py: warning: {warning}", file=sys.stderr)
        if launch:
            hosts.check_devices()
            hosts.agree(_asked_for(command) | {
                f"version of {name}": version for name, version in backend.versions().items()})
        return hosts.leave(jobs.run(command.job, command.config, command.workdir,
                                    command.dry_run))


def _check_own_model(command: Command) -> None:
    """Raises a UserError for a run of a model that its experiment's file adds, without that file.
    """
    from cnnjax import models

    name = command.config.model.name
    if command.experiment is None and name not in models.list_models() and (
            _holds_run(str(command.workdir))):
        raise UserError(f"The run in {command.workdir} is of the model {name!r}, which is not one "
                        "of cnnjax's own. Name the experiment that adds it, too: --config=FILE.")


def _asked_for(command: Command) -> dict[str, Any]:
    """Returns what several processes must be asked for alike. Of workdirs `hosts.meet_in` sees it.
    """
    return {key: value for key, value in config_lib.flatten(command.config).items()
            if key not in config_lib.MAY_DIFFER_BY_HOST} | {
                "--job": command.job, "--dry_run": command.dry_run}


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
    if path is None and job in _WITHOUT_CONFIG:
        config = config_lib.default()
        if folder is None:
            raise UserError(f"Say which sweep or folder of runs: --job={job} --workdir=DIR.")
    elif path is None and job in _STANDALONE and model and not _holds_run(folder):
        folder = folder or f"runs/{job}-{model}"
        config = config_lib.default()
        config.train.steps = 1  # Nothing trains, and a config has a length.
    elif path is None and folder is not None:
        from cnnjax.jobs import workdir

        config = workdir.load_config(Path(folder))
    else:
        config = None
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
    return Command(values.job, config, Path(folder or _default_workdir(path)), values.dry_run, path,
                   {**values["config"].override_values, **dict.fromkeys(unset)})


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


def _holds_run(folder: str | None) -> bool:
    return folder is not None and (expanded(folder) / "config.json").exists()


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


def _default_workdir(path: str) -> Path:
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
