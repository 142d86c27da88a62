"""The pure steps."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import ops
from cnnjax.train import step as step_lib
from cnnjax.train.state import NO_STEP, create_state

train_step = jax.jit(step_lib.train_step, static_argnums=0)
eval_step = jax.jit(step_lib.eval_step, static_argnums=0)


class Tiny(nn.Module):
    """A convolution, batch norm, dropout and a head."""

    classes: int = 7

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.tanh(x).mean((1, 2)))
        return nn.Dense(self.classes)(x)


def task(**changes):
    def augment(key, images):
        return images.astype(jnp.float32) / 255 + 0.01 * jax.random.normal(key, images.shape)

    return step_lib.Task(**{"module": Tiny(), "optimizer": optax.sgd(0.1, momentum=0.9),
                            "augment": augment} | changes)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {"image": jnp.asarray(rng.integers(0, 256, (8, 6, 6, 1)), jnp.uint8),
            "label": jnp.asarray(rng.integers(0, 7, 8), jnp.int32), "key": jax.random.key(3)}


CONSTANTS = {"key": 3}


def fetch(constants, batch):
    return {"key": jax.random.key(constants["key"]), **batch} if constants else batch


def arrays(batch):
    """Returns what has rows, without the key."""
    return {name: batch[name] for name in ("image", "label")}


def mesh():
    return jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))


def start(t):
    return jax.jit(lambda: create_state(t.module, t.optimizer, jax.random.key(0), (1, 6, 6, 1)))()


def test_smoothed_cross_entropy_is_optax_with_smoothed_labels():
    logits = jax.random.normal(jax.random.key(0), (5, 4)) * 3
    labels = jnp.array([0, 1, 2, 3, 0])
    smooth = optax.smooth_labels(jax.nn.one_hot(labels, 4), 0.1)
    np.testing.assert_allclose(step_lib.cross_entropy(logits, labels, 0.1),
                               optax.softmax_cross_entropy(logits, smooth), rtol=1e-5)


def test_a_step_is_a_pure_function_of_its_arguments(batch):
    t = task()
    first, _ = train_step(t, start(t), batch)
    second, _ = train_step(t, start(t), batch)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert int(first.step) == 1 and int(first.window["count"]) == 8


def test_every_step_draws_its_own_noise(batch):
    t = task()
    state = start(t)
    _, loss0 = train_step(t, state, batch)
    _, loss1 = train_step(t, state.replace(step=state.step + 1), batch)
    assert float(loss0) != float(loss1)


def test_several_steps_in_a_call_are_those_steps_one_by_one(batch):
    t = task()
    call = step_lib.make_train_call(t, fetch, mesh())
    three = jax.tree.map(lambda a: jnp.stack([a, a[::-1], a]), arrays(batch))
    together, losses = call(start(t), CONSTANTS, three)
    alone = start(t)
    for i in range(3):
        alone, loss = call(alone, CONSTANTS, jax.tree.map(lambda a, i=i: a[i:i + 1], three))
        np.testing.assert_allclose(loss[0], losses[i], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), together,
                 alone)


def test_a_step_compiles_once(batch):
    t = task()
    call = step_lib.make_train_call(t, fetch, mesh())
    state = jax.device_put(start(t), step_lib.replicated(mesh()))
    one = jax.tree.map(lambda a: a[None], arrays(batch))
    for _ in range(4):
        state, _ = call(state, CONSTANTS, one)
    assert call._cache_size() == 1


def test_only_the_training_step_takes_less_exact_formulations(batch):
    taken = []

    class Convolution(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            kernel = self.param("kernel", nn.initializers.ones, (3, 3, 48, 48))
            x = jnp.broadcast_to(x, (*x.shape[:3], 48))
            taken.append(ops.formulation(x, kernel))
            return ops.conv2d(x, kernel).mean((1, 2))

    t = task(module=Convolution())
    state = jax.eval_shape(lambda: start(t))
    masked = dict(batch, image=batch["image"] / 255, mask=jnp.ones(8))
    for choice in ("auto", "xla"):
        taken.clear()
        with ops.using(choice):
            jax.eval_shape(lambda state: step_lib.train_step(t, state, batch), state)
            jax.eval_shape(lambda v: step_lib.eval_step(t.module, v, masked), state.variables)
        assert taken == [{"auto": "winograd", "xla": "xla"}[choice], "xla"]


def test_a_step_takes_the_memory_of_the_state_before_it(batch):
    call = step_lib.make_train_call(task(), fetch, mesh())
    before = jax.device_put(start(task()), step_lib.replicated(mesh()))
    call(before, CONSTANTS, jax.tree.map(lambda a: a[None], arrays(batch)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(
        (before.params, before.batch_stats, before.opt_state)))


def test_an_evaluation_compiles_once(batch):
    t = task()
    call = step_lib.make_eval_call(t.module, fetch, lambda x: x.astype(jnp.float32), mesh())
    variables = jax.device_put(start(t).variables, step_lib.replicated(mesh()))
    sums = step_lib.empty_sums(mesh())
    counts = []
    for _ in range(3):
        sums = call(variables, {}, batch | {"mask": jnp.ones(8)}, sums)
        counts.append(sums["count"])  # `loop.evaluate` waits for those of earlier batches.
    assert [int(count) for count in counts] == [8, 16, 24] and call._cache_size() == 1


def test_on_an_accelerator_several_steps_are_one_loop_with_the_same_result(batch, monkeypatch):
    t = task()
    two = jax.tree.map(lambda a: jnp.stack([a, a[::-1]]), arrays(batch))
    unrolled, losses = step_lib.make_train_call(t, fetch, mesh())(start(t), CONSTANTS, two)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    call = step_lib.make_train_call(t, fetch, mesh())
    assert "while" in call.lower(start(t), CONSTANTS, two).as_text()
    scanned, again = call(start(t), CONSTANTS, two)
    np.testing.assert_allclose(losses, again, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), unrolled,
                 scanned)


def test_a_state_keeps_its_types_where_jax_counts_in_64_bits(batch):
    with jax.enable_x64(True):
        t = task()
        state = start(t)
        after, _ = jax.eval_shape(lambda s: step_lib.train_step(t, s, batch), state)
        types = [jax.tree.map(lambda leaf: leaf.dtype, (tree.step, tree.window))
                 for tree in (state, after)]
        assert types[0] == types[1]


def test_a_loss_that_is_not_finite_is_dated(batch):
    t = task(augment=lambda key, images: images.astype(jnp.float32) * jnp.nan)
    state = start(t)
    for _ in range(3):
        state, _ = train_step(t, state, batch)
    assert int(state.window["bad_step"]) == 1
    good, _ = train_step(task(), start(task()), batch)
    assert int(good.window["bad_step"]) == NO_STEP


def test_masked_rows_count_for_nothing(batch):
    t = task()
    variables = start(t).variables
    images = batch["image"].astype(jnp.float32)
    whole = eval_step(t.module, variables, batch | {"image": images, "mask": jnp.arange(8) < 5})
    part = eval_step(t.module, variables, {
        "image": images[:5], "label": batch["label"][:5], "mask": jnp.ones(5)})
    assert int(whole["count"]) == 5
    for key in whole:
        np.testing.assert_allclose(whole[key], part[key], rtol=1e-6)


def test_top_k_agrees_with_a_sort_and_breaks_ties_like_argmax():
    logits = np.random.default_rng(1).normal(size=(50, 9)).round(1)
    labels = np.arange(50) % 9
    order = np.argsort(-logits, axis=1, kind="stable")
    for k in (1, 5):
        got = step_lib._in_top(jnp.asarray(logits), jnp.asarray(labels), k)
        np.testing.assert_array_equal(got, (order[:, :k] == labels[:, None]).any(1))


def test_nan_logits_are_never_right():
    assert not step_lib._in_top(jnp.full((1, 3), jnp.nan), jnp.array([0]), 1).any()


class NoNorm(nn.Module):
    """Nothing that looks at other rows or draws."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.tanh(nn.Conv(4, (3, 3))(x)).mean((1, 2))
        return nn.Dense(7)(x)


def leaves_close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


def reversed_mix(key, images, labels):
    return 0.7 * images + 0.3 * images[::-1], labels[::-1], jnp.full(len(labels), 0.7)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_accumulated_gradients_are_those_of_the_large_batch(batch, monkeypatch, backend):
    whole = task(module=NoNorm(), mix=reversed_mix)
    parts = task(module=NoNorm(), mix=reversed_mix, accumulate=4)
    one, loss = train_step(whole, start(whole), batch)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    four, loss_of_parts = train_step(parts, start(parts), batch)
    leaves_close(one, four, rtol=1e-5, atol=1e-6)
    assert float(loss) == pytest.approx(float(loss_of_parts), rel=1e-6)


def test_parts_have_batch_statistics_of_their_own(batch):
    whole, parts = task(), task(accumulate=2)
    one, _ = train_step(whole, start(whole), batch)
    two, _ = train_step(parts, start(parts), batch)
    assert int(two.window["count"]) == 8 and int(two.step) == 1
    # The mean of the parts' means is the mean, and a running mean that starts at 0 has taken up a
    # share of 0.01 of it once, and of nearly 0.02 in two updates.
    once, twice = (s.batch_stats["BatchNorm_0"]["mean"] for s in (one, two))
    np.testing.assert_allclose(twice / once, 1.99, rtol=0.02)


def test_the_averages_follow_parameters_and_batch_statistics(batch):
    t = task(average_decay=0.5)
    seen, key = [], jax.random.key(0)
    state = create_state(t.module, t.optimizer, key, (1, 6, 6, 1), average=True)
    for _ in range(3):
        state, _ = train_step(t, state, batch)
        seen.append(state.variables)
    weights = np.array([0.25, 0.5, 1.0]) / 1.75
    expected = jax.tree.map(lambda *v: sum(w * x for w, x in zip(weights, v, strict=True)), *seen)
    leaves_close(state.average, expected, rtol=1e-5, atol=1e-6)
    assert state.eval_variables is state.average
    plain = start(task())
    assert plain.average == {} and plain.eval_variables["params"] is plain.params


def test_mixed_labels_count_in_the_loss_and_the_heavier_one_in_the_accuracy(batch):
    t = task(module=NoNorm(), mix=reversed_mix, augment=lambda key, x: x.astype(jnp.float32) / 255)
    state = start(t)
    _, loss = train_step(t, state, batch)
    images = batch["image"].astype(jnp.float32) / 255
    logits = t.module.apply(state.variables, 0.7 * images + 0.3 * images[::-1])
    target = 0.7 * jax.nn.one_hot(batch["label"], 7) + 0.3 * jax.nn.one_hot(
        batch["label"][::-1], 7)
    assert float(loss) == pytest.approx(
        float(optax.softmax_cross_entropy(logits, target).mean()), rel=1e-5)
    new, _ = train_step(t, state, batch)
    assert int(new.window["top1"]) == int((logits.argmax(-1) == batch["label"]).sum())


class Coin(nn.Module):
    """All logits are 0 but the first one's, which dropout makes 0 or 2."""

    @nn.compact
    def __call__(self, x, train=False):
        coin = nn.Dropout(0.5, deterministic=not train)(jnp.ones(1))
        bias = self.param("bias", nn.initializers.zeros, (7,))
        return jnp.zeros((len(x), 7)).at[:, 0].set(coin) + bias


def test_each_part_of_a_batch_draws_for_itself(batch):
    t = task(module=Coin(), accumulate=2, optimizer=optax.sgd(0.0))
    state, zeros = start(t), batch | {"label": jnp.zeros(8, jnp.int32)}
    found = [train_step(t, state.replace(step=jnp.int32(i)), zeros)[1] for i in range(20)]
    heads, tails = np.log(1 + 6 * np.exp(-2)), np.log(7)
    np.testing.assert_allclose(np.unique(np.round(found, 4)), [heads, (heads + tails) / 2, tails],
                               atol=1e-4)


def test_averages_that_start_later_begin_with_the_first_step_that_they_take_in(batch):
    t = task(average_decay=0.5, average_start=2)
    state = create_state(t.module, t.optimizer, jax.random.key(0), (1, 6, 6, 1), average=True)
    state, _ = train_step(t, state.replace(step=jnp.int32(2)), batch)
    leaves_close(state.average, state.variables, rtol=1e-6)
