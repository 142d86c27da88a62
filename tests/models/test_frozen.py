"""The part of a model that does not train behaves as in evaluation."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.models import create_model, depth, frozen, init_variables, variable_shapes
from cnnjax.trees import named_leaves
from cnnjax.types import UserError

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 16, 16, 3)), jnp.float32)


def resnet(**changes):
    return create_model("resnet18", 5, **{"stage_sizes": (1, 1), "widths": (4, 8),
                                          "stem": "cifar"} | changes)


def test_a_module_is_frozen_if_none_of_its_parameters_trains():
    names = ["a/conv/kernel", "a/norm/scale", "a/norm/bias", "head/kernel"]
    assert frozen.frozen_modules(names, ["head/kernel"]) == {"a", "a/conv", "a/norm"}
    assert frozen.frozen_modules(names, ["a/norm/bias", "head/kernel"]) == {"a/conv"}
    assert frozen.frozen_modules(names, names) == frozenset()


def test_frozen_norms_use_and_keep_their_running_statistics_and_the_others_the_batchs():
    model = resnet()
    variables = jax.jit(model.init)(jax.random.key(0), X)
    stats = jax.tree.map(lambda a: a + 0.5, variables["batch_stats"])
    names = named_leaves(variables["params"])
    paths = frozen.frozen_modules(names, [n for n in names if not n.startswith("st")])
    with frozen.as_in_evaluation(paths):
        logits, updates = model.apply({**variables, "batch_stats": stats}, X, train=True,
                                      mutable=["batch_stats"])
    np.testing.assert_array_equal(
        logits, model.apply({**variables, "batch_stats": stats}, X, train=False))
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], stats)

    paths = frozen.frozen_modules(names, [n for n in names if not n.startswith("stem")])
    with frozen.as_in_evaluation(paths):
        _, updates = model.apply({**variables, "batch_stats": stats}, X, train=True,
                                 mutable=["batch_stats"])
    for name, after in named_leaves(updates["batch_stats"]).items():
        before = named_leaves(stats)[name]
        assert np.array_equal(before, after) == name.startswith("stem"), name


def test_nothing_is_dropped_in_frozen_modules():
    from flax import linen as nn

    from cnnjax.models.parts import DropPath

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dropout(0.5, deterministic=False)(nn.Dense(6)(x))
            return DropPath(0.5, train=True)(x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(6, name="head")(Block(name="block")(x))

    x, rngs = jnp.ones((8, 6)), {"dropout": jax.random.key(1)}
    variables = Net().init(rngs | {"params": jax.random.key(0)}, x)
    rows = np.asarray(Net().apply(variables, x, rngs=rngs))
    assert np.ptp(rows, axis=0).max() > 1e-3
    with frozen.as_in_evaluation({"block", "block/Dense_0"}):
        rows = np.asarray(Net().apply(variables, x, rngs=rngs))
    assert np.ptp(rows, axis=0).max() == 0


def head_alone(model, shape):
    """Returns the paths of what behaves as in evaluation where the head alone trains."""
    names = named_leaves(variable_shapes(model, shape)["params"])
    trainable = [name for name in names if name.startswith("head/")]
    return (frozen.frozen_modules(names, trainable)
            | frozen.frozen_drops(model, shape, names, trainable))


TINY = dict(widths=(4,) * 5, hidden=8)


@pytest.mark.parametrize(("name", "size", "changes"), [
    ("vgg11", 32, TINY), ("alexnet", 63, TINY),
    pytest.param("googlenet", 32, dict(width=0.25, stage_sizes=(1, 1, 1), aux_logits=True),
                 marks=pytest.mark.slow),
    pytest.param("efficientnet_b0", 32, dict(width=0.25, depth=0.5, drop_path_rate=0.5),
                 marks=pytest.mark.slow)])
def test_a_head_that_trains_alone_sees_the_features_of_the_evaluation_less_what_it_drops_itself(
        name, size, changes):
    model, x = create_model(name, 5, **changes), jax.random.normal(jax.random.key(1),
                                                                    (4, size, size, 3))
    variables, paths = init_variables(model, jax.random.key(0), x.shape), head_alone(model, x.shape)

    @jax.jit
    def both(key):
        with frozen.as_in_evaluation(paths):
            (logits, beside), _ = model.apply(variables, x, train=True, capture="features",
                                              mutable=["batch_stats"], rngs={"dropout": key})
        return logits, beside["features"]

    (first, features), (second, _) = (both(jax.random.key(k)) for k in (1, 2))
    _, head = frozen.split_at_head(model, x.shape)
    assert np.array_equal(first, second) == (head.dropout_rate == 0)
    _, beside = jax.jit(lambda: model.apply(variables, x, capture="features"))()
    np.testing.assert_allclose(features, beside["features"], rtol=1e-5, atol=1e-7)


def test_dropout_is_frozen_unless_a_layer_before_it_or_the_next_one_trains():
    model, shape = create_model("vgg11", 5, **TINY), (1, 32, 32, 3)
    names = [f"{layer}/kernel" for layer in ("stage1_conv1", "fc1", "fc2", "head")]
    for trainable, expected in (("head", {"Dropout_0"}), ("fc2", set()), ("stage1_conv1", set())):
        assert frozen.frozen_drops(model, shape, names, [f"{trainable}/kernel"]) == expected
    # The branch of a block whose shortcut alone trains is made of frozen layers.
    model = resnet(drop_path_rate=0.5)
    names = named_leaves(variable_shapes(model, X.shape)["params"])
    for layer, stages in (("shortcut_norm", (1, 2)), ("norm2", (1,))):
        trainable = [name for name in names if name.startswith(f"stage2_block1/{layer}/")]
        assert frozen.frozen_drops(model, X.shape, names, trainable) == {
            f"stage{i}_block1/drop_path" for i in stages}


@pytest.mark.parametrize(("name", "size"), [
    ("simple_cnn", 8), pytest.param("lenet5", 28, marks=pytest.mark.slow),
    pytest.param("resnet20_cifar", 16, marks=pytest.mark.slow)])
def test_trunk_and_head_one_after_the_other_are_the_model(name, size):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, size, size, 1)), jnp.float32)
    model = create_model(name, 7)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    trunk, head = frozen.split_at_head(model, x.shape)
    np.testing.assert_array_equal(head.apply(variables, trunk.apply(variables, x)),
                                  model.apply(variables, x))


def test_the_head_drops_what_its_model_drops_before_its_last_layer():
    assert frozen.split_at_head(resnet(dropout_rate=0.25), X.shape)[1].dropout_rate == 0.25
    assert frozen.split_at_head(create_model("simple_cnn", 5, hidden=(6,), dropout_rate=0.5),
                                X.shape)[1].dropout_rate == 0.5
    for drop, rate in (("inputs", 0), ("outputs", 0.5)):
        model, shape = create_model("alexnet", 5, drop=drop, **TINY), (1, 63, 63, 3)
        assert frozen.split_at_head(model, shape)[1].dropout_rate == rate
        dropped = {"Dropout_0", "Dropout_1"} if drop == "inputs" else {"Dropout_0"}
        assert head_alone(model, shape) & {"Dropout_0", "Dropout_1"} == dropped


@pytest.mark.parametrize(("name", "size", "groups"), [
    ("resnet18", 64, {"stem": 3, "stage1": 12, "stage2": 15, "stage3": 15, "stage4": 15,
                      "logits": 2}),
    ("lenet5", 28, {"conv1": 2, "conv2": 2, "fc1": 2, "features": 2, "logits": 2}),
    ("simple_cnn", 8, {"conv1": 4, "conv2": 4, "conv3": 4, "logits": 2})])
def test_a_parameter_belongs_to_the_first_endpoint_that_needs_it(name, size, groups):
    owners = depth.endpoint_of_parameters(create_model(name, 5), (1, size, size, 1))
    found = {group: sum(owner == group for owner in owners.values()) for group in owners.values()}
    assert found == groups
    assert owners["head/kernel"] == "logits" and owners[next(iter(owners))] in groups


def test_heights_rise_from_the_head_to_the_stem():
    heights = depth.heights(resnet(), X.shape)
    assert [heights[name] for name in ("head/kernel", "stage2_block1/conv1/kernel",
                                       "stage1_block1/norm2/scale", "stem_conv/kernel")] == [
                                           0, 1, 2, 3]


@pytest.mark.parametrize(("name", "size"), [
    ("squeezenet1_1", 64), ("vgg11_bn", 64), ("convnext_tiny", 64), ("googlenet", 96),
    ("densenet121", 64), ("mobilenet_v3_small", 64), ("resnetv2_50", 64), ("efficientnet_b0", 64),
    ("efficientnet_v2_s", 64)])
def test_heights_fall_from_stage_to_stage_whatever_the_net(name, size):
    arguments = {"aux_logits": True} if name == "googlenet" else {}
    heights = depth.heights(create_model(name, 5, **arguments), (1, size, size, 3))
    assert set(heights.values()) == set(range(1 + max(heights.values())))  # None is left out.
    of = {}
    for path, height in heights.items():
        of.setdefault(re.split("[_/]", path)[0], set()).add(height)
    stages = sorted(part for part in of if part.startswith("stage"))
    order = [of[part] for part in ("stem", *stages, "final", "head") if part in of]
    assert len(stages) >= 3 and all(
        min(before) > max(after) for before, after in zip(order, order[1:], strict=False))
    assert all(heights[path] == 0 for path in heights if path.startswith(("head/", "aux")))


def test_from_a_stage_on_means_that_stage_and_everything_after_it():
    found = depth.parameters_from(resnet(), X.shape, "stage2")
    assert {name.partition("/")[0] for name in found} == {"stage2_block1", "head"}
    with pytest.raises(UserError, match="Did you mean 'stage2'.* stem, stage1, stage2, features"):
        depth.parameters_from(resnet(), X.shape, "stage22")
