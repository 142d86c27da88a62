"""Drawing a model's variables, and their shapes."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import cnnjax
from cnnjax.models import create_model, init_variables, variable_shapes
from cnnjax.models.simple_cnn import SimpleCNN


def test_shapes_and_values_are_those_of_init_and_share_one_trace(monkeypatch):
    traced = []
    original = SimpleCNN.init
    monkeypatch.setattr(SimpleCNN, "init", lambda *a, **k: traced.append(1) or original(*a, **k))
    model, shape = create_model("simple_cnn", 7, widths=(3, 5)), (1, 8, 8, 3)
    key = jax.random.key(3)
    shapes = variable_shapes(model, shape)
    drawn = init_variables(model, key, shape)
    assert len(traced) == 1
    expected = original(model, key, np.zeros(shape, np.float32))
    jax.tree.map(np.testing.assert_array_equal, drawn, expected)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), shapes) == jax.tree.map(
        lambda a: (a.shape, a.dtype), drawn)


@pytest.mark.parametrize("widths", [[8], np.array([8])])
def test_attributes_may_be_lists_and_arrays(widths):
    class Net(nn.Module):
        widths: list

        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(int(self.widths[0]), name="head")(x.mean((1, 2)))

    assert cnnjax.summarize(Net(widths), (1, 8, 8, 3)).params == 8 * 3 + 8
    assert init_variables(Net(widths), jax.random.key(0), (1, 8, 8, 3))["params"]["head"][
        "kernel"].shape == (3, 8)
