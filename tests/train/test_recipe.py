"""Rematerialisation, ghost batch norm, distillation and sharding of the state, each on its own."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import cnnjax
from cnnjax import trees
from cnnjax.models.ghost import ghost_batches
from cnnjax.models.layers import BatchNorm
from cnnjax.models.remat import modules_to_rematerialise, rematerialised
from cnnjax.train import step as step_lib
from cnnjax.train.distillation import Distillation, distillation_loss
from cnnjax.train.sharding import shard_state
from cnnjax.train.state import create_state
from cnnjax.types import UserError

MODEL = cnnjax.create_model("resnet20_cifar", num_classes=3, widths=(4, 8), stage_sizes=(1, 2),
                            drop_path_rate=0.3)


def loss_and_gradient(module, paths, variables, images):
    def loss(params):
        with rematerialised(paths):
            logits, updates = module.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(1)})
        return jnp.square(logits).sum(), updates

    return jax.value_and_grad(loss, has_aux=True)(variables["params"])


def paths_of(module, images, *patterns):
    params = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
    return modules_to_rematerialise(trees.named_leaves(params), patterns)


def test_what_is_computed_again_has_the_same_gradients_and_statistics():
    images = jax.random.normal(jax.random.key(2), (4, 8, 8, 3))
    model = MODEL.clone(widths=(4,), stage_sizes=(2,))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    plain, again = (jax.jit(lambda v, p=paths: loss_and_gradient(model, p, v, images))(variables)
                    for paths in ((), paths_of(model, images, "stage.*")))
    # Stochastic depth drops the same branches, too.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain, again)


def test_parts_within_others_are_computed_again_with_those():
    names = ["part1/conv/kernel", "part1/norm/scale", "part10/conv/kernel", "head/kernel"]
    for patterns in ([".*"], ["part.*", "head"], ["part1", "part1/conv", "part10", "head"]):
        assert modules_to_rematerialise(names, patterns) == {"part1", "part10", "head"}
    assert modules_to_rematerialise(names, ["part1/.*"]) == {"part1/conv", "part1/norm"}


@pytest.mark.parametrize("recipe", [
    {"ghost_batch_size": 2}, {"running_statistics": True},
    {"trainable": frozenset({"head/kernel", "head/bias"})}], ids=lambda recipe: next(iter(recipe)))
def test_a_norm_that_is_computed_again_is_a_ghost_or_frozen_all_the_same(recipe):
    images = jax.random.normal(jax.random.key(2), (4, 8, 8, 3))
    key = jax.random.key(0)
    batch = {"image": images, "label": jnp.array([0, 1, 2, 0]), "key": key}
    paths = paths_of(MODEL, images, ".*")
    assert any("norm" in path for path in paths)  # Norms themselves, not only blocks around them.

    def after_a_step(remat):
        task = step_lib.Task(MODEL, optax.sgd(0.1), lambda key, x: x, remat=remat, **recipe)
        state = create_state(MODEL, task.optimizer, key, images.shape, lambda p: task.split(p)[0])
        state, loss = jax.jit(step_lib.train_step, static_argnums=0)(task, state, batch)
        return state.variables, loss

    plain, again = after_a_step(frozenset()), after_a_step(paths)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain, again)


class _Deep(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x * self.param("scale", nn.initializers.ones, ())
        for _ in range(8):
            x = jnp.sin(x)
        return x


class _Two(nn.Module):
    @nn.compact
    def __call__(self, x):
        return _Deep(name="second")(_Deep(name="first")(x))


def test_what_is_computed_again_is_not_remembered():
    x = jnp.ones(100)
    variables = jax.eval_shape(_Two().init, jax.random.key(0), x)

    def maps_kept(*paths):
        def backward(variables, x):
            with rematerialised(paths):
                return jax.vjp(lambda v: _Two().apply(v, x).sum(), variables)[1]

        kept = jax.eval_shape(lambda x: backward({"params": {
            name: {"scale": x[0]} for name in ("first", "second")}}, x), x)
        return sum(leaf.shape == x.shape for leaf in jax.tree.leaves(kept))

    assert trees.count(variables) == 2
    nothing, one, both = maps_kept(), maps_kept("second"), maps_kept("first", "second")
    assert both <= one - 7 <= nothing - 14


@pytest.mark.slow
def test_a_resnet50_remembers_less_for_the_backward_pass():
    model = cnnjax.create_model("resnet50", num_classes=10)
    images = jax.ShapeDtypeStruct((8, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def remembered(*patterns):
        paths = paths_of(model, images, *patterns) if patterns else ()

        def backward(params, images):
            def loss(params):
                with rematerialised(paths):
                    return model.apply({**variables_of(params)}, images, train=True,
                                       mutable=["batch_stats"])[0].sum()

            return jax.vjp(loss, params)[1]

        def variables_of(params):
            return {"params": params, "batch_stats": jax.tree.map(
                lambda a: jnp.zeros(a.shape), variables["batch_stats"])}

        residuals = jax.eval_shape(backward, variables["params"], images)
        return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(residuals))

    weights = sum(4 * a.size for a in jax.tree.leaves(variables["params"]))
    nothing, half, everything = (remembered(*p) - weights for p in ((), ("stage[12]_.*",),
                                                                    ("stage.*",)))
    assert everything < nothing / 4 and everything < half < nothing


def test_a_part_that_is_not_there_cannot_be_computed_again():
    with pytest.raises(UserError, match=r"stage9.*stem_conv"):
        paths_of(MODEL, jnp.zeros((1, 8, 8, 3)), "stage9_.*")


def test_ghost_batch_norm_is_batch_norm_of_each_group():
    norm = BatchNorm(train=True)
    x = jax.random.normal(jax.random.key(0), (12, 3, 3, 2)) * 3 + 1
    variables = jax.jit(norm.init)(jax.random.key(1), x)
    cotangent = jax.random.normal(jax.random.key(2), x.shape)

    def run(x, cotangent, size):
        def forward(x):
            with ghost_batches(size):
                return norm.apply(variables, x, mutable=["batch_stats"])

        y, back, updates = jax.vjp(forward, x, has_aux=True)
        return y, back(cotangent)[0], updates["batch_stats"]

    y, dx, running = run(x, cotangent, 4)
    groups = [run(x[i:i + 4], cotangent[i:i + 4], 0) for i in (0, 4, 8)]
    np.testing.assert_allclose(y, jnp.concatenate([g[0] for g in groups]), atol=1e-5)
    np.testing.assert_allclose(dx, jnp.concatenate([g[1] for g in groups]), atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(running[name], sum(g[2][name] for g in groups) / 3, rtol=1e-5)
    assert np.abs(y - run(x, cotangent, 0)[0]).max() > 0.01


def test_groups_that_do_not_divide_the_batch_are_named():
    norm = BatchNorm(train=True)
    x = jnp.ones((6, 2, 2, 1))
    with pytest.raises(UserError, match="groups of 4"), ghost_batches(4):
        norm.apply(jax.jit(norm.init)(jax.random.key(0), x), x, mutable=["batch_stats"])


def test_the_distillation_loss_is_that_of_hinton_by_hand():
    rng = np.random.default_rng(0)
    student, teacher, t = rng.normal(size=(4, 5)) * 2, rng.normal(size=(4, 5)) * 3, 2.5
    p, q = (np.exp(z / t) / np.exp(z / t).sum(-1, keepdims=True) for z in (teacher, student))
    by_hand = t**2 * (p * (np.log(p) - np.log(q))).sum(-1)
    np.testing.assert_allclose(distillation_loss(student, teacher, t), by_hand, rtol=1e-5)
    # Section 2.1: at high temperatures the gradient is that of half the squared difference of
    # centred logits, over the number of classes.
    hot = jax.grad(lambda z: distillation_loss(z, teacher, 1e3).sum())(student)
    centred = (student - student.mean(-1, keepdims=True)) - (
        teacher - teacher.mean(-1, keepdims=True))
    np.testing.assert_allclose(hot, centred / 5, rtol=2e-2, atol=1e-3)


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(x.reshape(len(x), -1))


def test_a_step_learns_from_the_teacher_and_from_the_labels():
    images = jax.random.normal(jax.random.key(0), (4, 2, 2, 1))
    labels = jnp.array([0, 1, 2, 0])
    teacher = jax.jit(Linear().init)(jax.random.key(5), 2 * images)
    task = step_lib.Task(Linear(), optax.sgd(0.0), lambda key, x: x,
                         distillation=Distillation(Linear(), lambda x: 2 * x, 0.3, 2.0))
    key = jax.random.key(0)
    state = create_state(task.module, task.optimizer, key, images.shape)
    _, loss = jax.jit(step_lib.train_step, static_argnums=0)(
        task, state, {"image": images, "label": labels, "teacher": teacher, "key": key})
    logits = Linear().apply(state.variables, images)
    hard = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    soft = distillation_loss(logits, Linear().apply(teacher, 2 * images), 2.0).mean()
    np.testing.assert_allclose(loss, 0.7 * hard + 0.3 * soft, rtol=1e-5)


class _Eight:
    """A mesh of which only the size is asked."""
    size = 8


def test_what_belongs_to_a_parameter_lies_as_the_parameter_does(monkeypatch):
    monkeypatch.setattr("cnnjax.train.sharding.NamedSharding", lambda mesh, spec: spec)
    optimizer = optax.sgd(0.1, momentum=0.9)
    state = jax.eval_shape(lambda: create_state(MODEL, optimizer, jax.random.key(0), (1, 8, 8, 3),
                                                average=True))
    specs = trees.named_leaves(shard_state(state, state.params, _Eight, min_size=500))
    kernel = "stage2_block2/conv1/kernel"  # 3x3x8x8
    divided = PartitionSpec(None, None, None, "data")
    assert {name for name, spec in specs.items() if name.endswith(kernel)} == {
        f"params/{kernel}", f"opt_state/0/trace/{kernel}", f"average/params/{kernel}"}
    assert all(spec == (divided if name.endswith(("stage2_block2/conv1/kernel",
                                                  "stage2_block2/conv2/kernel",
                                                  "stage2_block1/conv2/kernel"))
                        else PartitionSpec()) for name, spec in specs.items())
    with pytest.raises(UserError, match=r"head/bias has shape \(3,\)"):
        shard_state(state, state.params, _Eight, rules=(".*bias",))


@pytest.mark.parametrize("devices", [1, 8])
def test_a_rule_that_divides_nothing_is_an_error_on_one_device_too(devices):
    params = {"head": {"kernel": jax.ShapeDtypeStruct((16, 8), jnp.float32)}}
    with pytest.raises(UserError, match="'hed/kernel' matches the whole name of no parameter"):
        shard_state({"params": params}, params, types.SimpleNamespace(size=devices),
                    rules=("hed/kernel",))


def test_the_smallest_parameter_of_that_size_is_divided_and_no_other_shape(monkeypatch):
    monkeypatch.setattr("cnnjax.train.sharding.NamedSharding", lambda mesh, spec: spec)
    params = {"w": jax.ShapeDtypeStruct((16, 8), jnp.float32)}
    state = {"params": params,
             "opt_state": {"rows": {"w": jax.ShapeDtypeStruct((16,), jnp.float32)}}}
    found = shard_state(state, params, _Eight, min_size=128)
    assert found == {"params": {"w": PartitionSpec("data")},
                     "opt_state": {"rows": {"w": PartitionSpec()}}}
    assert shard_state(state, params, _Eight, rules=("w",)) == found
    assert set(jax.tree.leaves(shard_state(state, params, _Eight, min_size=129))) == {
        PartitionSpec()}
