"""Steps in which a part of the model does not train."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import trees
from cnnjax.models import create_model, depth, frozen
from cnnjax.train import step as step_lib
from cnnjax.train.state import create_state

train_step = jax.jit(step_lib.train_step, static_argnums=0)
SHAPE = (1, 16, 16, 3)
MODEL = create_model("resnet18", 5, stage_sizes=(1, 1, 1), widths=(4, 8, 16), stem="cifar")


def make_task(trainable=None, **changes):
    return step_lib.Task(module=MODEL, optimizer=optax.adam(1e-2), augment=lambda key, x: x,
                         trainable=trainable, **changes)


def start(task):
    """Returns a state whose statistics and scales are not what they are at first."""
    state = jax.jit(lambda: create_state(MODEL, task.optimizer, jax.random.key(0), SHAPE))()
    trainable, _ = task.split(state.params)
    return state.replace(opt_state=task.optimizer.init(trainable),
                         batch_stats=jax.tree.map(lambda a: a + 0.25, state.batch_stats))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {"image": jnp.asarray(rng.normal(size=(8, 16, 16, 3)), jnp.float32),
            "label": jnp.asarray(rng.integers(0, 5, 8), jnp.int32), "key": jax.random.key(3)}


HEAD = frozenset({"head/kernel", "head/bias"})
FROM_STAGE2 = depth.parameters_from(MODEL, SHAPE, "stage2")


@pytest.mark.parametrize("trainable", [HEAD, FROM_STAGE2], ids=["head", "from stage 2"])
def test_what_is_frozen_keeps_its_bits_and_statistics_and_has_no_optimizer_state(trainable, batch):
    task = make_task(trainable)
    before = start(task)
    after = before
    for _ in range(3):
        after, _ = train_step(task, after, batch)
    pairs = zip(trees.named_leaves(before.params).items(),
                trees.named_leaves(after.params).values(), strict=True)
    for (name, old), new in pairs:
        assert np.array_equal(old, new) == (name not in trainable), name
    pairs = zip(trees.named_leaves(before.batch_stats).items(),
                trees.named_leaves(after.batch_stats).values(), strict=True)
    for (name, old), new in pairs:
        module = name.rpartition("/")[0]
        assert np.array_equal(old, new) == (f"{module}/scale" not in trainable), name
    own = trees.count(task.split(before.params)[0])
    assert trees.count(after.opt_state) == 2 * own + 1  # Two moments each, and Adam's counter.


def test_norms_can_train_and_keep_their_running_statistics(batch):
    task = make_task(running_statistics=True)
    before = start(task)
    after, _ = train_step(task, before, batch)
    jax.tree.map(np.testing.assert_array_equal, before.batch_stats, after.batch_stats)
    pairs = zip(trees.named_leaves(before.params).items(),
                trees.named_leaves(after.params).values(), strict=True)
    assert all(not np.array_equal(old, new) for (_, old), new in pairs)


def flops(task, batch):
    step = jax.jit(lambda state, batch: step_lib.train_step(task, state, batch))
    return step.lower(start(task), batch).compile().cost_analysis()["flops"]


@pytest.mark.slow
def test_no_gradient_of_what_is_frozen_is_computed(batch):
    forward = jax.jit(lambda v, x: MODEL.apply(v, x, train=False)).lower(
        start(make_task()).variables, batch["image"]).compile().cost_analysis()["flops"]
    everything, some, head = (flops(make_task(t), batch) for t in (None, FROM_STAGE2, HEAD))
    assert head < 1.1 * forward
    assert 2.2 * forward < everything
    assert head < 0.8 * some and some < 0.8 * everything


def test_a_head_behind_its_trunk_takes_the_same_step_as_the_model_with_its_trunk_frozen(batch):
    whole = make_task(HEAD)
    trunk, head = frozen.split_at_head(MODEL, SHAPE)
    behind = dataclasses.replace(whole, module=head, trunk=trunk)
    first, loss = train_step(whole, start(whole), batch)
    second, same = train_step(behind, start(whole), batch)
    np.testing.assert_allclose(loss, same, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), first, second)


def test_a_step_of_the_head_alone_drops_nothing_between_frozen_layers(batch):
    """AlexNet's dropout is before its two hidden layers, and none before its head."""
    model = create_model("alexnet", 5, widths=(4,) * 5, hidden=8)
    images = jax.random.normal(jax.random.key(0), (8, 63, 63, 3))
    task = dataclasses.replace(make_task(HEAD), module=model)
    state = jax.jit(lambda: create_state(model, task.optimizer, jax.random.key(0), images.shape))()
    state = state.replace(opt_state=task.optimizer.init(task.split(state.params)[0]))
    losses = [train_step(task, state, batch | {"image": images, "key": jax.random.key(seed)})[1]
              for seed in (0, 1)]
    assert losses[0] == losses[1]


def test_gradients_of_what_trains_are_those_of_the_whole_model(batch):
    """Without norms nothing else changes by freezing."""
    model = create_model("lenet5", 5)
    x = jax.random.normal(jax.random.key(0), (4, 28, 28, 1))
    params = jax.jit(model.init)(jax.random.key(1), x)["params"]
    data = batch | {"image": x, "label": batch["label"][:4]}

    def change(trainable):
        task = dataclasses.replace(make_task(trainable), module=model, optimizer=optax.sgd(1.0))
        state = jax.jit(lambda: create_state(model, task.optimizer, jax.random.key(0), x.shape))()
        state = state.replace(params=params, opt_state=task.optimizer.init(task.split(params)[0]))
        after, _ = train_step(task, state, data)
        return trees.named_leaves(jax.tree.map(jnp.subtract, params, after.params))

    every, some = change(None), change(depth.parameters_from(model, x.shape, "fc1"))
    for name, gradient in some.items():
        expected = every[name] if name.startswith(("fc", "head")) else 0 * gradient
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7, err_msg=name)
