import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.train.average import scaled_decay, update_average


@pytest.mark.parametrize("decay", [0.5, 0.99996])
def test_the_average_is_its_closed_form(decay):
    values = np.random.default_rng(0).normal(size=(40, 3))
    average = {"w": jnp.full(3, 1e6)}  # What it starts from has no influence.
    for t, value in enumerate(values, start=1):
        average = update_average(average, {"w": jnp.asarray(value, jnp.float32)}, decay,
                                 jnp.int32(t))
        weights = decay ** np.arange(t - 1, -1, -1.0)
        expected = weights @ values[:t] / weights.sum()
        np.testing.assert_allclose(average["w"], expected, rtol=2e-4, atol=2e-5)


def test_a_decay_scaled_to_the_batch_forgets_as_much_for_each_example():
    assert scaled_decay(0.999, 256, None) == 0.999
    assert scaled_decay(0.999, 1024, 256) == pytest.approx(0.999**4)
    assert scaled_decay(0.999, 64, 256) ** 4 == pytest.approx(0.999)
