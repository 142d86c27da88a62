"""--job=train: trains, evaluates, checkpoints and resumes."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from cnnjax import exit_codes, interrupts
from cnnjax.checkpoint import Checkpoints
from cnnjax.jobs import (
    ahead,
    backend,
    compiled_steps,
    console,
    faults,
    hosts,
    initial_weights,
    overview,
    record,
    resume,
    signals,
    workdir,
)
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.course import steps_per_call
from cnnjax.jobs.evaluation import Evaluate, Inputs, make_inputs
from cnnjax.jobs.experiment import Experiment
from cnnjax.jobs.new_state import begin_phase, make_draw, new_state
from cnnjax.jobs.session import Session
from cnnjax.train import loop
from cnnjax.train.state import TrainState


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Trains, or goes on, in `folder`; returns the exit code.

    What happens, in order of precedence:
      1. The folder holds another experiment: an error that lists the differences.
      2. The folder holds this run, finished: its summary is printed and nothing changes.
      3. The folder holds this run, unfinished: it goes on from the last checkpoint.
      4. Otherwise training starts from scratch.
    A checkpoint that is damaged is told of, and the one before it is the last.
    """
    workdir.check_no_sweep(folder)
    saved = workdir.read_json(folder / workdir.CONFIG)
    if saved is not None and workdir.holds_run(folder):
        record.check_goes_on(saved, config, folder)
    backend.warn_of_products(config.precision)
    preprocess = resume.saved_preprocess(config, folder)
    over = not dry_run and resume.has_ended(config, folder, saved)
    experiment = experiment_lib.build(config, preprocess, trains=not over)
    finished = resume.finished(experiment, folder)
    if dry_run:
        overview.dry_run(experiment)
        return 0
    if finished:
        console.print_table(f"{folder} is finished; nothing to do", finished)
        return 0
    if over:  # It goes on, for longer.
        experiment = experiment_lib.build(config, preprocess)
    workdir.check_writable(folder)
    with workdir.alone_in(folder):
        return _go_on(experiment, folder)


def _go_on(experiment: Experiment, folder: Path) -> int:
    """Trains from what is in the folder; returns the exit code."""
    config = experiment.config
    hosts.meet_in(folder)  # All have read what is there, before any changes it.
    if finished := resume.finished(experiment, folder):  # By another process, which had the folder.
        console.print_table(f"{folder} is finished; nothing to do", finished)
        return 0
    record.agree(experiment)
    checkpoints = Checkpoints(
        folder / workdir.CHECKPOINTS, keep_last=config.checkpoint.keep_last,
        keep_best=config.checkpoint.keep_best, metric=config.checkpoint.metric)
    if steps := checkpoints.steps():  # What earlier sessions could not save.
        checkpoints.errors += checkpoints.record(steps[-1]).get("checkpoint_errors", [])
    experiment.bad_files.keep_in(folder, resumed=bool(steps))
    with hosts.closing(checkpoints), signals.stop_requests() as should_stop:
        while (code := _train(experiment, folder, checkpoints, should_stop)) is None:
            pass  # Rolled back: again, from the last checkpoint.
        return code


def _state_at(experiment: Experiment, checkpoints: Checkpoints, step: int,
              draw: ahead.Call | None = None) -> TrainState:
    """Returns the state with which the step after this one is made: new, or a checkpoint's."""
    if not step:
        if experiment.weights is None:  # This session went on from a checkpoint that did not hold.
            experiment = dataclasses.replace(experiment, weights=initial_weights.load(
                experiment.config, experiment.dataset))
        return new_state(experiment, draw)
    abstract = experiment.abstract_state_at(step)
    state = checkpoints.restore(step, abstract, experiment.state_sharding(abstract))
    following = experiment.phase_of(step + 1)
    if following is not experiment.phase_of(step):
        state = begin_phase(experiment, following, state)
    return state


def _make_ready(experiment: Experiment, checkpoints: Checkpoints, start: resume.Start
                ) -> tuple[TrainState, Inputs, ahead.Call]:
    """Returns state, batches and training step of the phase that goes on from a start.

    Unless the phase trains on features, the drawing of the state compiles while the step is traced,
    and the step, which may not be done when this returns, while the state is made.
    """
    step, phase = start.step, experiment.phase_of(start.step + 1)
    if phase.cached_trunk is not None:  # Its batches are features by the state's parameters.
        state = _state_at(experiment, checkpoints, step)
        inputs = make_inputs(experiment, phase, state)
        return state, inputs, ahead.make_call(experiment, phase, inputs.fetch)
    stored = None
    if not start.rollbacks:  # Each of which makes another program of the same config.
        stored = compiled_steps.of(experiment.config, experiment.phases.index(phase))
    draw = None
    if not step:
        draw = make_draw(experiment, compiled_steps.of(experiment.config, compiled_steps.DRAW))
        # Several processes compute all things in one order, which the main thread keeps.
        draw.prepare(experiment.seed, after=stored, calls=not hosts.several())
    inputs = make_inputs(experiment, phase)
    call = ahead.make_call(experiment, phase, inputs.fetch, stored)
    stop = min(phase.stop, experiment.schedule.stop)
    if step < stop:
        steps = min(steps_per_call(experiment.config), stop - step)
        call.prepare(experiment.placed_state_at(step + 1), inputs.constants,
                     inputs.feed.batch_shapes(steps))
    experiment.multiply_adds  # noqa: B018  Which will be told: traced while the state is drawn.
    return _state_at(experiment, checkpoints, step, draw), inputs, call


def _train(experiment: Experiment, folder: Path, checkpoints: Checkpoints,
           should_stop: Callable[[], bool]) -> int | None:
    """Trains from the last checkpoint on; returns the exit code, or None after a rollback."""
    # Nothing to save yet: a signal may end it at once, unless others would wait for it.
    interrupts.hold(hosts.several())
    start = resume.find_start(experiment, folder, checkpoints)
    experiment = experiment_lib.at_rate(
        experiment, faults.rate_factor(experiment.config, start.rollbacks))
    state, inputs, call = _make_ready(experiment, checkpoints, start)
    _announce(experiment, folder, inputs, start.step)
    session = Session(experiment, folder, checkpoints, start)
    # What was not measured is so first, and saved: perhaps not for the first time.
    interrupts.hold(start.recorded < start.step or hosts.several())
    try:
        with session:
            state = _run_phases(experiment, start, state, inputs, call, session,
                                session.hooks(should_stop))
            checkpoints.wait()
    except loop.NonFiniteLossError as error:
        if faults.roll_back(error, experiment, folder, checkpoints, start.rollbacks):
            return None
        faults.report_non_finite(error, experiment, folder, checkpoints, start.rollbacks)
        return exit_codes.FAILED
    except loop.Preempted as stop:
        return _say_stopped(stop.step, experiment.total_steps, checkpoints)
    if not _saved(state, folder, checkpoints, session):
        return exit_codes.FAILED
    session.summarize(state)
    return 0


def _announce(experiment: Experiment, folder: Path, inputs: Inputs, step: int) -> None:
    workdir.write_json(folder / workdir.CONFIG, workdir.to_json(experiment.config))
    if hosts.is_first():
        (folder / workdir.SUMMARY).unlink(missing_ok=True)  # It speaks of a run that now goes on.
    console.print_table("Training", overview.rows(experiment, inputs.feed) | {
        "workdir": folder} | ({"resumed at step": f"{step:,}"} if step else {}))


def _saved(state: TrainState, folder: Path, checkpoints: Checkpoints, session: Session) -> bool:
    """Whether the last state is on disk, be it at a second try; says so if not."""
    step = int(state.step)
    if step not in checkpoints.steps():
        session.save_again(state)  # There may be room now.
        checkpoints.wait()
    if step not in checkpoints.steps():
        faults.report_unsaved(folder, checkpoints, step)
        return False
    return True


def _say_stopped(step: int, total: int, checkpoints: Checkpoints) -> int:
    checkpoints.wait()
    if step in checkpoints.steps():
        print(f"Stopped and saved at step {step:,} of {total:,}. Run the same command to go on.",
              flush=True)
    else:
        print(f"Stopped at step {step:,} of {total:,}, which could not be saved. Run the same "
              f"command to go on from step {max(checkpoints.steps(), default=0):,}.",
              file=sys.stderr, flush=True)
    return exit_codes.PREEMPTED


def _run_phases(experiment: Experiment, start: resume.Start, state: TrainState, inputs: Inputs,
                call: Callable, session: Session, hooks: loop.Hooks) -> TrainState:
    """Trains on from `start`; inputs and call are of its phase, and later ones get their own."""
    step, schedule, first = start.step, experiment.schedule, experiment.phase_of(start.step + 1)
    phases = [phase for phase in experiment.phases[experiment.phases.index(first):]
              if phase is first or phase.start < schedule.stop]
    ready = None
    for phase, following in zip(phases, [*phases[1:], None], strict=True):
        if phase is not first:
            state = begin_phase(experiment, phase, state)
            inputs = make_inputs(experiment, phase, state, inputs)
            step = phase.start
            session.new_phase()
            call = ready or ahead.make_call(experiment, phase, inputs.fetch)
        stop, several = min(phase.stop, schedule.stop), steps_per_call(experiment.config)
        batches = inputs.feed.batches(step, stop, several)
        if stop - step > several and (rest := (stop - step) % several):
            call, batches = ahead.ending(call, batches, inputs.feed.batch_shapes(rest))
        ready = None
        if following is not None and following.continued:
            ready = ahead.make_call(experiment, following, inputs.fetch)
            call = ahead.compiling(call, ready, following.image_size)
        hooks.evaluate = functools.partial(_evaluate, experiment, inputs.evaluate)
        state = loop.fit(call, state, inputs.constants, batches, schedule, hooks,
                         start_step=step, batch_size=experiment.config.train.batch_size,
                         unmeasured_since=start.unmeasured_since if phase is first else None)
    return state


def _evaluate(experiment: Experiment, evaluate: Evaluate, state: TrainState,
              should_stop: Callable[[], bool]) -> dict[str, float]:
    # With several processes the others would have to agree on the batch to stop at.
    variables = experiment.gather(state.eval_variables)
    return evaluate(variables) if hosts.several() else evaluate(variables, should_stop)
