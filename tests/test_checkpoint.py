"""Orbax checkpoints: what is kept, what comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.checkpoint import Checkpoints
from cnnjax.train import step as step_lib
from cnnjax.types import UserError


@pytest.fixture
def sharding():
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))
    return step_lib.replicated(mesh)


def save(checkpoints, scores, sharding):
    for step, score in enumerate(scores, 1):
        metrics = {} if score is None else {"eval_top1": score}
        state = jax.device_put({"w": jnp.full(4, float(step))}, sharding)
        checkpoints.save(step, state, {"metrics": metrics, "model": {"name": "m"}})
    checkpoints.wait()


def test_the_last_and_the_best_are_kept(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=1)
    save(checkpoints, [0.1, 0.9, 0.3, None, 0.4], sharding)
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.find("best") == 2 and checkpoints.find("last") == 5
    assert checkpoints.find("4") == 4
    checkpoints.close()


def test_the_lowest_loss_is_the_best(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=1, metric="loss")
    for step, loss in enumerate([0.5, 0.2, 0.7, 0.6], 1):
        checkpoints.save(step, jax.device_put({"w": jnp.ones(1)}, sharding),
                         {"metrics": {"eval_loss": loss}})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 4] and checkpoints.find("best") == 2
    checkpoints.close()


def test_arrays_and_record_come_back_as_they_were_saved(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, [0.5], sharding)
    abstract = jax.eval_shape(lambda: {"w": jnp.zeros(4)})
    state = checkpoints.restore(1, abstract, sharding)
    np.testing.assert_array_equal(state["w"], np.ones(4))
    assert state["w"].sharding == sharding
    assert checkpoints.record(1) == {"metrics": {"eval_top1": 0.5}, "model": {"name": "m"}}
    checkpoints.close()


def test_what_is_saved_is_the_state_at_the_call_though_its_buffers_are_donated(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path, keep_last=9)
    state = jax.device_put({"w": jnp.zeros(100_000)}, sharding)
    add = jax.jit(lambda s: {"w": s["w"] + 1}, donate_argnums=0)
    for step in range(1, 5):
        state = add(state)
        checkpoints.save(step, state, {"metrics": {}})
        for _ in range(20):
            state = add(state)
    checkpoints.wait()
    for step in range(1, 5):
        back = checkpoints.restore(step, jax.eval_shape(lambda: state), sharding)
        assert np.unique(back["w"]).tolist() == [1 + 21 * (step - 1)]
    checkpoints.close()


def test_a_checkpoint_that_is_not_there_is_the_users_error_and_lists_what_is(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match="none at all"):
        checkpoints.find("last")
    save(checkpoints, [0.5], sharding)
    with pytest.raises(UserError, match="last, 1, and best"):
        checkpoints.find("77")
    checkpoints.close()
