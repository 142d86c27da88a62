"""The state with which a run, and each of its phases, begins."""

from __future__ import annotations

import functools

import jax

from cnnjax.jobs import ahead, initial_weights
from cnnjax.jobs.compiled_steps import CompiledStep
from cnnjax.jobs.experiment import Experiment
from cnnjax.jobs.phases import Phase, begin
from cnnjax.train import step as step_lib
from cnnjax.train.state import TrainState


def make_draw(experiment: Experiment, stored: CompiledStep | None = None) -> ahead.Call:
    """Returns a function of `experiment.seed` that draws a state at step 0, on the devices.

    Args:
      experiment: of the run.
      stored: where it may lie compiled.
    """
    sharding = experiment.state_sharding(experiment.abstract_state)
    return ahead.Call(jax.jit(experiment.create_state, out_shardings=sharding), stored)


def new_state(experiment: Experiment, draw: ahead.Call | None = None) -> TrainState:
    """Returns the state at step 0, on the devices: drawn, or with the weights to start from.

    Args:
      experiment: of the run.
      draw: of `make_draw`, if its compilation was begun before.
    """
    state = (draw or make_draw(experiment))(experiment.seed)
    if not experiment.weights:
        return state
    sharding = experiment.state_sharding(experiment.abstract_state)
    # The weights come whole, whatever becomes of the state.
    return jax.device_put(initial_weights.put_into(
        state, experiment.weights, step_lib.replicated(experiment.mesh),
        initial_weights.keep_head(experiment.weights, experiment.config, state.params)), sharding)


def begin_phase(experiment: Experiment, phase: Phase, state: TrainState) -> TrainState:
    """Returns the state with which a phase begins, from that at the end of the one before."""
    if phase.continued:
        return state
    sharding = experiment.state_sharding(experiment.abstract_state_at(phase.start + 1))
    return jax.jit(functools.partial(begin, phase), donate_argnums=0,
                   out_shardings=sharding)(state)
