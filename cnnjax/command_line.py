"""`python launch.py …`: from a command to its job, and from errors to exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from cnnjax import config as config_lib
from cnnjax import exit_codes, garbage
from cnnjax.command_flags import (
    WITHOUT_CONFIG,
    Command,
    Compare,
    holds_run,
    parse,
    prepare_command,
)
from cnnjax.jobs import JOBS
from cnnjax.types import Failure, UserError
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
    return NotPrepared(error.name, error.data_dir, reason=error.reason,
                       command=prepare_command(argv))


def _run(command: Command | Compare, message_of: Callable[[UserError], UserError]) -> int:
    from cnnjax import jobs
    from cnnjax.jobs import backend, hosts, launches

    if isinstance(command, Compare) or command.job != "train" or command.config.seeds:
        garbage.look()  # A training run does so when it has started.
    launch = launches.find_launch(os.environ)
    if isinstance(command, Compare):
        from cnnjax.jobs import summarize

        if launch and launch.process:  # One is enough.
            return exit_codes.DONE
        return (summarize.run_scaling(command.models, command.config) if command.scaling
                else summarize.run_comparison(command.models))
    if command.job not in WITHOUT_CONFIG:
        _check_own_model(command)
        validate(command.config)
    sweeps = command.job == "sweep" or (command.job == "train" and command.config.seeds)
    if launch and (sweeps or command.job not in jobs.ON_MANY_HOSTS):
        if launch.process:
            return exit_codes.DONE
        # And what it starts is alone.
        launch, os.environ[launches.COUNT], os.environ[launches.INDEX] = None, "1", "0"
    if command.job in WITHOUT_CONFIG:
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
            if warning := backend.unused_accelerator():
                print(f"launch.py: warning: {warning}", file=sys.stderr)
            if not command.dry_run:
                backend.use_compilation_cache()
        if launch:
            hosts.check_devices()
            hosts.agree(_asked_for(command) | {
                f"version of {name}": version for name, version in backend.versions().items()})
        if command.job == "train" and not command.dry_run:
            from cnnjax.jobs import compiled_steps

            compiled_steps.begin(command.config, command.workdir)
        return hosts.leave(jobs.run(command.job, command.config, command.workdir,
                                    command.dry_run))


def _check_own_model(command: Command) -> None:
    """Raises a UserError for a run of a model that its experiment's file adds, without that file.
    """
    from cnnjax import models

    name = command.config.model.name
    if command.experiment is None and name not in models.list_models() and (
            holds_run(str(command.workdir))):
        raise UserError(f"The run in {command.workdir} is of the model {name!r}, which is not one "
                        "of cnnjax's own. Name the experiment that adds it, too: --config=FILE.")


def _asked_for(command: Command) -> dict[str, Any]:
    """Returns what several processes must be asked for alike. Of workdirs `hosts.meet_in` sees it.
    """
    return {key: value for key, value in config_lib.flatten(command.config).items()
            if key not in config_lib.MAY_DIFFER_BY_HOST} | {
                "--job": command.job, "--dry_run": command.dry_run}
