"""Learning-rate schedules against closed forms and optax's own."""

import math

import jax
import numpy as np
import optax
import pytest

from cnnjax.train.schedule import make_schedule, scaled_lr
from cnnjax.types import UserError


def values(schedule, steps):
    return np.array([float(schedule(s)) for s in steps])


def test_cosine_without_warmup_is_optax_cosine():
    ours = make_schedule("cosine", lr=0.3, total_steps=50, final_lr=0.1)
    theirs = optax.cosine_decay_schedule(0.3, 50, alpha=0.1)
    np.testing.assert_allclose(values(ours, range(51)), values(theirs, range(51)), rtol=1e-5)


def test_linear_without_warmup_is_optax_linear():
    ours = make_schedule("linear", lr=0.3, total_steps=50, final_lr=0.1)
    theirs = optax.linear_schedule(0.3, 0.03, 50)
    np.testing.assert_allclose(values(ours, range(51)), values(theirs, range(51)), rtol=1e-5)


def test_step_drops_at_the_named_steps_and_not_before():
    ours = make_schedule("step", lr=0.1, total_steps=100, drop_steps=(30, 60.5), drop_factor=0.1)
    np.testing.assert_allclose(values(ours, [0, 29, 30, 60, 61, 99]),
                               [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)


def test_exponential_is_optax_staircase_decay_counted_from_the_start_of_the_run():
    ours = make_schedule("exponential", lr=0.256, total_steps=100, drop_every_steps=2.5,
                         drop_factor=0.97, warmup_steps=5)
    theirs = optax.exponential_decay(0.256, 2.5, 0.97, staircase=True)
    np.testing.assert_allclose(values(ours, range(5, 100)), values(theirs, range(5, 100)),
                               rtol=1e-5)


@pytest.mark.parametrize(("name", "drops"), [
    ("exponential", {"drop_every_steps": 3.0}), ("step", {"drop_steps": (2, 4, 12)})])
def test_nothing_drops_within_the_warmup(name, drops):
    ours = make_schedule(name, lr=1.0, total_steps=100, warmup_steps=9, drop_factor=0.5, **drops)
    np.testing.assert_allclose(values(ours, range(9)), np.arange(1, 10) / 10, rtol=1e-6)
    passed = {"exponential": [3, 3, 3, 4], "step": [2, 2, 2, 3]}[name]
    np.testing.assert_allclose(values(ours, range(9, 13)), 0.5 ** np.array(passed), rtol=1e-6)


# In float32, n * interval times the reciprocal of most of these is less than n.
@pytest.mark.parametrize("interval", [3, 41, 61, 82, 122, 750])
def test_exponential_drops_at_whole_intervals_also_when_compiled(interval):
    rates = jax.jit(make_schedule("exponential", lr=1.0, total_steps=10**6, drop_factor=0.5,
                                  drop_every_steps=float(interval)))
    at = interval * np.arange(1, 12)
    np.testing.assert_array_equal(rates(at), 0.5 ** np.arange(1.0, 12))
    np.testing.assert_array_equal(rates(at - 1), 0.5 ** ((at - 1) // interval))


def test_the_warmup_learns_at_once_rises_linearly_and_meets_the_peak():
    ours = make_schedule("constant", lr=1.0, total_steps=100, warmup_steps=4)
    np.testing.assert_allclose(values(ours, range(6)), [0.2, 0.4, 0.6, 0.8, 1.0, 1.0], rtol=1e-6)


def test_the_rate_of_a_batch_of_1024_is_four_times_that_of_256():
    assert scaled_lr(0.1, 1024, 256) == pytest.approx(0.4)
    assert scaled_lr(0.1, 1024, None) == 0.1


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "exponential"])
def test_the_rate_stays_finite_and_from_zero_to_the_peak(name):
    ours = make_schedule(name, lr=0.5, total_steps=7, warmup_steps=2.5, drop_every_steps=4.0)
    got = values(ours, range(20))
    assert np.isfinite(got).all() and got.min() >= 0 and got.max() <= 0.5
    assert math.isclose(got.max(), 0.5, rel_tol=0.2)


def test_what_cannot_be_a_schedule_is_the_users_error():
    with pytest.raises(UserError, match="as long as the run"):
        make_schedule("cosine", lr=1, total_steps=5, warmup_steps=5)
    with pytest.raises(UserError, match="drop_epochs"):
        make_schedule("step", lr=1, total_steps=5)
    with pytest.raises(UserError, match="drop_every_epochs"):
        make_schedule("exponential", lr=1, total_steps=5)


def test_the_range_test_rises_by_the_same_factor_every_step():
    schedule = make_schedule("range_test", lr=10.0, total_steps=100, range_start=1e-6)
    rates = [float(schedule(step)) for step in (0, 50, 100)]
    assert rates == pytest.approx([1e-5, 1e-2, 10.0], rel=1e-3)
    late = make_schedule("range_test", lr=10.0, total_steps=100, range_start=1e-6, warmup_steps=9)
    assert [float(late(step)) for step in (0, 8, 9)] == pytest.approx([1e-6, 9e-6, 1e-5], rel=1e-3)
