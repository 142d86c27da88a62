"""The state with which a run begins."""

from __future__ import annotations

import jax

from cnnjax.jobs import initial_weights
from cnnjax.jobs.experiment import Experiment
from cnnjax.train import step as step_lib
from cnnjax.train.state import TrainState


def new_state(experiment: Experiment) -> TrainState:
    """Returns the state at step 0, on the devices: drawn, or with the weights to start from."""
    sharding = experiment.state_sharding(experiment.abstract_state)
    state = jax.jit(experiment.create_state, out_shardings=sharding)()
    if not experiment.weights:
        return state
    # The weights come whole, whatever becomes of the state.
    return jax.device_put(initial_weights.put_into(
        state, experiment.weights, step_lib.replicated(experiment.mesh)), sharding)
