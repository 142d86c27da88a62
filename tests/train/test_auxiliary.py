"""Auxiliary heads: their share of the loss and of the gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.models.layers import Conv, Dense, Endpoints, classify, endpoint_names
from cnnjax.train import step as step_lib
from cnnjax.train.state import create_state


class TwoHeads(nn.Module):
    """A stage with an auxiliary head, another stage, and the head."""

    num_classes: int = 5

    @nn.compact
    def __call__(self, x, train=False, capture=()):
        end = Endpoints(endpoint_names(("stage1", "stage2"), self.num_classes), capture)
        x = end("stage1", nn.tanh(Conv(4, 3, name="stage1_conv")(x)))
        if train or self.is_initializing():
            logits = Dense(self.num_classes, name="aux1")(x.mean((1, 2)))
            if train:
                end.auxiliary("aux1", logits)
        x = end("stage2", nn.tanh(Conv(4, 3, name="stage2_conv")(x)))
        return classify(x.mean((1, 2)), end, num_classes=self.num_classes, dropout_rate=0.0,
                        train=train)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {"image": jnp.asarray(rng.normal(size=(8, 6, 6, 2)), jnp.float32),
            "label": jnp.asarray(rng.integers(0, 5, 8), jnp.int32), "key": jax.random.key(3)}


def one_step(batch, aux_weight):
    """Returns the loss and, the rate being 1, the gradient as the change of the parameters."""
    task = step_lib.Task(module=TwoHeads(), optimizer=optax.sgd(1.0), augment=lambda key, x: x,
                         aux_weight=aux_weight)
    key = jax.random.key(0)
    state = jax.jit(lambda: create_state(task.module, task.optimizer, key, (1, 6, 6, 2)))()
    after, loss = jax.jit(step_lib.train_step, static_argnums=0)(task, state, batch)
    return state, loss, jax.tree.map(jnp.subtract, state.params, after.params)


def test_the_loss_is_the_heads_plus_the_weighted_losses_of_the_auxiliary_heads(batch):
    state, loss, _ = one_step(batch, 0.3)
    logits, beside = TwoHeads().apply(state.variables, batch["image"], train=True)
    own, aux = (optax.softmax_cross_entropy_with_integer_labels(x, batch["label"]).mean()
                for x in (logits, beside["aux1"]))
    np.testing.assert_allclose(loss, own + 0.3 * aux, rtol=1e-6)


def test_gradients_are_linear_in_the_weight_and_reach_only_what_is_before_the_auxiliary_head(
        batch):
    without, with_one, with_third = (one_step(batch, weight)[2] for weight in (0.0, 1.0, 0.3))
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(c, a + 0.3 * (b - a), atol=1e-6),
                 without, with_one, with_third)
    assert not np.any(without["aux1"]["kernel"]) and np.any(with_one["aux1"]["kernel"])
    assert np.abs(with_one["stage1_conv"]["kernel"] - without["stage1_conv"]["kernel"]).max() > 1e-4
    for name in ("stage2_conv", "head"):
        np.testing.assert_allclose(with_one[name]["kernel"], without[name]["kernel"], atol=1e-6)


def test_evaluation_needs_and_counts_no_auxiliary_head(batch):
    state, _, _ = one_step(batch, 0.3)
    sums = step_lib.eval_step(TwoHeads(), state.variables, batch | {"mask": jnp.ones(8)})
    assert int(sums["count"]) == 8
