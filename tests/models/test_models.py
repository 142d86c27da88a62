"""The contract that every model keeps, whatever its architecture."""

import functools
import inspect
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_torch_models

from cnnjax import ops, trees
from cnnjax.models import create_model, identify, list_models, lookup, model_arguments
from cnnjax.models.parts import DropPath
from cnnjax.models.table import TABLE
from cnnjax.types import UserError

# Parameters and batch-norm statistics of models that test_torch_models does not have.
PARAMS = {
    "lenet5": (60_806, 0), "simple_cnn": (94_986, 448), "alexnet_original": (60_965_224, 0),
    "wide_resnet101_2": (126_886_696, 137_856), "resnext101_64x4d": (83_455_272, 202_880),
    "seresnext50_32x4d": (27_559_896, 68_224),
    "resnet20_cifar": (269_722, 1_376), "resnet32_cifar": (464_154, 2_272),
    "resnet44_cifar": (658_586, 3_168), "resnet56_cifar": (853_018, 4_064),
    "resnet110_cifar": (1_727_962, 8_096),
    "plain20_cifar": (269_722, 1_376), "plain32_cifar": (464_154, 2_272),
    "plain44_cifar": (658_586, 3_168), "plain56_cifar": (853_018, 4_064),
    "plain110_cifar": (1_727_962, 8_096),
    "googlenet_original": (6_998_552, 0),
    "densenet161": (28_681_000, 219_936),
    "efficientnetv2_s": (21_458_488, 153_872), "efficientnetv2_m": (54_139_356, 292_032),
    "efficientnetv2_l": (118_515_272, 512_576),
}
# One of each kind: the others, which the same lines build, are left to the slow tests.
KINDS = ("lenet5", "lenet5_full", "simple_cnn", "alexnet_original", "alexnet", "vgg11_bn",
         "googlenet", "googlenet_original", "inception_v3", "resnet18", "resnet50", "seresnet18",
         "seresnext50_32x4d", "resnetv2_50", "squeezenet1_0", "squeezenet1_1", "densenet121",
         "convnext_tiny", "cifar_resnet18", "resnet20_cifar", "plain20_cifar", "mobilenet_v2",
         "mobilenet_v3_small", "efficientnet_b0", "tf_efficientnet_lite0", "efficientnet_v2_s")
# Of them one or two of each published family that the experiments train.
TRAINED = ("lenet5", "simple_cnn", "alexnet", "vgg11_bn", "googlenet", "resnet18", "resnet50",
           "resnet20_cifar", "mobilenet_v2", "efficientnet_b0")
EACH = [pytest.param(name, marks=[] if name in TRAINED else [pytest.mark.slow]) for name in KINDS]
EVERY, COUNTED = ([pytest.param(name, marks=[] if name in KINDS else [pytest.mark.slow])
                   for name in names] for names in (list_models(), PARAMS))
# Sides of the least images, in pixels, where they are above 64.
LEAST = {"inception_v3": 75}


def classes(name):
    return 1000 if lookup(name).input_size[0] >= 224 else 10


def specs(name, batch=2):
    """The shape of a batch: the published size, or 64 px instead of 224, which trace the same."""
    height, width, channels = lookup(name).input_size
    most = LEAST.get(name, 64)
    return jax.ShapeDtypeStruct((batch, min(height, most), min(width, most), channels), jnp.float32)


def shapes(model, x, train=False):
    init = functools.partial(model.init, train=train)
    return jax.eval_shape(init, jax.random.key(0), x)


# A shallow one of each kind, for the tests that compile.
SMALL = {"lenet5": {}, "simple_cnn": dict(widths=(8, 16)),
         "alexnet_original": dict(widths=(8, 16, 16, 16, 16), hidden=32),
         "squeezenet1_1": dict(stage_sizes=(1, 1), widths=(4, 8)),
         "densenet121": dict(stage_sizes=(1, 1), growth_rate=8, stem_width=16),
         "convnext_tiny": dict(stage_sizes=(1, 1), widths=(16, 24)),
         "resnet20_cifar": dict(stage_sizes=(1, 1, 1)),
         "efficientnet_b0": dict(width=0.25, depth=0.1)}


@functools.cache
def images(name):
    return np.random.default_rng(0).normal(size=specs(name).shape).astype(np.float32)


@functools.cache
def values(name):
    """Variables of a shallow model, drawn by NumPy: compiling `init` takes longer than a test."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        spread = (2 / np.prod(leaf.shape[:-1])) ** 0.5 if len(leaf.shape) > 1 else 0.1
        positive = path.endswith(("scale", "var"))
        return rng.normal(1.0 if positive else 0.0, spread, leaf.shape).astype(np.float32)

    tree = shapes(small(name), specs(name))
    leaves = [draw(path, leaf) for path, leaf in trees.named_leaves(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def small(name, **overrides):
    return create_model(name, num_classes=10, **SMALL[name], **overrides)


def test_every_listed_model_is_held_to_a_published_size():
    assert set(PARAMS) | set(test_torch_models.NAMES) == set(list_models())


@pytest.mark.parametrize("module", {entry.module: entry for entry in TABLE.values()})
def test_the_file_of_an_architecture_names_its_paper_and_is_read_in_one_go(module):
    source = inspect.getmodule(module)
    assert len(inspect.getsource(source).splitlines()) <= 200
    papers = {entry.paper for entry in TABLE.values() if entry.module is module}
    assert papers == {None} or re.search(r"arXiv\s\d{4}\.\d{4,5}|Proceedings", source.__doc__)


@pytest.mark.parametrize("name", COUNTED)
def test_parameters_and_statistics_are_as_many_as_published(name):
    variables = shapes(create_model(name, classes(name)), specs(name))
    assert (trees.count(variables["params"]),
            trees.count(variables.get("batch_stats", {}))) == PARAMS[name]


@pytest.mark.parametrize("name", EVERY)
def test_init_creates_every_parameter_whatever_train_is(name):
    model = create_model(name, classes(name))
    variables = shapes(model, specs(name), train=False)
    assert variables == shapes(model, specs(name), train=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert "kernel" in variables["params"]["head"]


@pytest.mark.parametrize("name", EACH)
def test_every_endpoint_can_be_captured_and_leaves_the_logits_alone(name):
    model, x = create_model(name, classes(name)), specs(name)
    variables = shapes(model, x)
    plain = jax.eval_shape(model.apply, variables, x)
    assert (plain.shape, plain.dtype) == ((2, classes(name)), jnp.float32)
    capture = functools.partial(model.apply, capture=model.endpoints)
    logits, found = jax.eval_shape(capture, variables, x)
    assert logits == found["logits"] == plain
    assert set(found) == set(model.endpoints)
    assert found["features"].ndim == 2
    assert found["stage1"].ndim == 4


@pytest.mark.parametrize("name", EACH)
def test_without_classes_the_output_is_the_features(name):
    model, x = create_model(name, num_classes=0), specs(name)
    variables = shapes(model, x)
    assert "head" not in variables["params"]
    output, found = jax.eval_shape(functools.partial(model.apply, capture="features"), variables, x)
    assert output == found["features"]
    assert "logits" not in model.endpoints


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_computes_in_bfloat16_and_gives_float32_logits(name):
    variables, x = values(name), images(name)
    low = small(name, dtype="bfloat16")
    exact = jax.jit(small(name).apply)(variables, x)
    logits, found = jax.jit(functools.partial(low.apply, capture=("stage1", "features")))(
        variables, x)
    assert found["stage1"].dtype == jnp.bfloat16
    assert logits.dtype == found["features"].dtype == jnp.float32
    assert np.abs(logits - exact).max() < 0.1 * exact.std()


@pytest.mark.parametrize("choice", ["auto", "xla"])
def test_an_accelerator_computes_the_head_of_a_bfloat16_model_in_float32(choice, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    model, x = small("resnet20_cifar", dtype="bfloat16"), images("resnet20_cifar")
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    with ops.using(choice):
        traced = jax.jit(jax.grad(lambda params, stats: model.apply(
            {"params": params, "batch_stats": stats}, x).sum())).trace(
                variables["params"], variables["batch_stats"])
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("dot_general") == text.count("precision = [HIGHEST, HIGHEST]") > 0


@pytest.mark.parametrize("name,side,arguments", [
    ("squeezenet1_1", 32, dict(stage_sizes=(1,), widths=(4,))),
    ("inception_v3", 299, dict(pool_widths=(8,), widths_7x7=(8,), last_blocks=1, aux_logits=True)),
    ("googlenet", 64, dict(stage_sizes=(1, 5, 1), aux_logits=True)),
    ("googlenet_original", 224, dict(stage_sizes=(1, 5, 1), aux_logits=True))])
def test_an_accelerator_rounds_no_factors_in_a_head_of_another_kind(
        name, side, arguments, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    model, x = create_model(name, 1009, **arguments), jnp.zeros((2, side, side, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)

    def loss(params, stats):
        out, _ = model.apply({"params": params, "batch_stats": stats}, x, train=True,
                             rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"])
        return sum(leaf.sum() for leaf in jax.tree.leaves(out))

    text = jax.jit(jax.grad(loss)).trace(
        variables["params"], variables.get("batch_stats", {})).lower(
            lowering_platforms=("tpu",)).as_text()
    heads = [line for line in text.splitlines() if "1009" in line and re.search(
        r"stablehlo\.(dot_general|convolution)", line)]
    assert len(heads) >= 2 and all("HIGHEST" in line for line in heads)


def test_a_training_step_of_a_bfloat16_model_gives_float32_gradients_and_statistics():
    variables, x = values("resnet20_cifar"), images("resnet20_cifar")
    model = small("resnet20_cifar", dtype="bfloat16")

    def loss(params):
        logits, updated = model.apply({**variables, "params": params}, x, train=True,
                                      mutable=["batch_stats"])
        return jnp.square(logits).mean(), updated

    gradients, updated = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert {leaf.dtype for leaf in jax.tree.leaves((gradients, updated))} == {jnp.dtype("float32")}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradients, updated)))


def test_both_formulations_give_the_same_logits_and_only_xla_has_forward_mode():
    variables, x = values("resnet20_cifar"), images("resnet20_cifar")
    apply = jax.jit(small("resnet20_cifar").apply)
    fast = apply(variables, x)
    with ops.using("xla"):
        plain, tangent = jax.jvp(lambda x: apply(variables, x), (x,), (x,))
    np.testing.assert_allclose(fast, plain, atol=1e-5 * np.std(plain))
    assert np.isfinite(tangent).all()


AUXILIARY = [("googlenet", 64, ("aux1", "aux2"), 13_004_888),
             ("googlenet_original", 224, ("aux1", "aux2"), 13_378_280),
             ("inception_v3", 299, ("aux1",), 27_161_264)]


@pytest.mark.parametrize("name,side,heads,params", AUXILIARY)
def test_auxiliary_heads_are_there_from_the_start_and_answer_in_training_alone(name, side, heads,
                                                                               params):
    model = create_model(name, aux_logits=True, dtype="bfloat16")
    x = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    variables = shapes(model, x, train=False)
    assert variables == shapes(model, x, train=True)
    assert trees.count(variables["params"]) == params
    assert jax.eval_shape(model.apply, variables, x).shape == (2, 1000)
    train = functools.partial(model.apply, train=True, mutable=["batch_stats"], capture="stage1",
                              rngs={"dropout": jax.random.key(0)})
    (logits, beside), _ = jax.eval_shape(train, variables, x)
    assert set(beside) == {*heads, "stage1"}
    assert beside["stage1"].dtype == jnp.bfloat16
    for found in (logits, *(beside[head] for head in heads)):
        assert (found.shape, found.dtype) == ((2, 1000), jnp.float32)


@pytest.mark.parametrize("name", EACH)
def test_no_images_have_no_logits(name):
    model, x = create_model(name, classes(name)), specs(name, batch=0)
    variables = shapes(model, specs(name))
    assert jax.eval_shape(model.apply, variables, x).shape == (0, classes(name))


@pytest.mark.parametrize("name", [name for name, *_ in AUXILIARY])
def test_auxiliary_heads_are_off_by_default_and_without_classes(name):
    x = specs(name)
    assert not model_arguments(name)["aux_logits"]
    plain, headless = (shapes(create_model(name, **arguments), x)["params"] for arguments in (
        dict(num_classes=10), dict(num_classes=0, aux_logits=True)))
    assert {*plain} - {*headless} == {"head"}
    assert not any("aux" in layer for layer in plain)


@pytest.mark.parametrize("name", ["lenet5", "alexnet_original", "densenet121", "convnext_tiny"])
def test_bytes_are_no_input_of_a_model(name):
    x = jax.ShapeDtypeStruct(images(name).shape, np.uint8)
    with pytest.raises(UserError, match="takes floating-point images, .* got uint8: give it"):
        shapes(small(name), x)


@pytest.mark.parametrize("name", ["lenet5", "simple_cnn", "alexnet_original", "squeezenet1_1"])
def test_dropout_draws_from_its_own_stream_and_only_in_training(name):
    model, variables, x = small(name, dropout_rate=0.5), values(name), images(name)
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, x),
                                  jax.jit(small(name).apply)(variables, x))
    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    one, again, other = (apply(variables, x, rngs={"dropout": jax.random.key(seed)})[0]
                         for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0
    shapes(model, specs(name), train=True)


@pytest.mark.parametrize("name", ["resnet20_cifar", "resnetv2_50"])
def test_stochastic_depth_rises_linearly_from_none_to_its_rate_in_the_last_block(name):
    model = create_model(name, 10, drop_path_rate=0.3,
                         stage_sizes=(2, 1, 1), widths=(16, 32, 64))
    rates = []

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            assert context.module.train
            rates.append(context.module.rate)
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(model, specs(name), train=True)
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny"])
def test_branches_are_dropped_in_training_alone(name):
    model, x = small(name, drop_path_rate=0.3), specs(name)
    for train in (True, False):
        modes = []

        def record(next_call, args, kwargs, context, modes=modes):
            if isinstance(context.module, DropPath):
                modes.append(context.module.train)
            return next_call(*args, **kwargs)

        with nn.intercept_methods(record):
            shapes(model, x, train=train)
        assert set(modes) == {train}


def test_names_are_listed_by_pattern_in_the_order_of_the_table():
    assert list_models("resnet?? ") == []
    assert list_models("resnet??") == ["resnet18", "resnet34", "resnet50"]
    assert list_models("plain*") == [f"plain{depth}_cifar" for depth in (20, 32, 44, 56, 110)]


def test_model_arguments_are_plain_values_of_this_variant():
    assert model_arguments("simple_cnn") == {
        "widths": (32, 64, 128), "width": 1.0, "depth": 1.0, "hidden": (), "batch_norm": True,
        "global_pool": True, "dropout_rate": 0.0, "bn_momentum": 0.9, "dtype": "float32"}
    assert model_arguments("resnet50")["block"] == "bottleneck"
    assert model_arguments("plain56_cifar")["stage_sizes"] == (9, 9, 9)
    for name in list_models():
        arguments = model_arguments(name)
        assert not {"num_classes", "parent", "name"} & set(arguments)
        assert create_model(name, 10, **arguments) == create_model(name, 10)


def test_overrides_may_come_as_lists_and_strings():
    model = create_model("simple_cnn", 10, widths=[8, 16], hidden=[32], dtype="bfloat16",
                         dropout_rate=0)
    assert (model.widths, model.hidden, model.dtype) == ((8, 16), (32,), jnp.bfloat16)
    hash(model)


@pytest.mark.parametrize("name,arguments,message", [
    ("resnet51", {}, "no model 'resnet51'. Did you mean 'resnet50'"),
    ("resnet50", dict(droput_rate=0.1), "no argument 'droput_rate'. Did you mean 'dropout_rate'"),
    ("resnet50", dict(num_class=3), "Did you mean 'num_classes'"),
    ("resnet50", dict(num_classes=-1), "num_classes must be 0 or more"),
    ("resnet50", dict(num_classes="ten"), "num_classes must be an integer, got 'ten'"),
    ("resnet50", dict(dropout_rate=1.0), "dropout_rate must be from 0 to below 1"),
    ("resnet50", dict(dropout_rate="high"), "dropout_rate must be a number"),
    ("resnet50", dict(bn_momentum=1.5), "bn_momentum must be from 0 to below 1"),
    ("resnet50", dict(dtype="bf16"), "dtype must be a floating-point dtype"),
    ("resnet50", dict(dtype="int8"), "dtype must be a floating-point dtype"),
    ("resnet50", dict(shortcut="conv"), "must be 'projection' or 'pad' or 'none'"),
    ("resnet50", dict(zero_init_residual=1), "must be True or False"),
    ("resnet50", dict(stage_sizes=(3, 4)), "one entry for each stage"),
    ("resnet50", dict(widths=(64, 0, 256, 512)), "must be positive"),
    ("plain20_cifar", dict(zero_init_residual=True), "all outputs and gradients"),
    ("plain20_cifar", dict(drop_path_rate=0.1), "all outputs and gradients"),
    ("resnet18", dict(groups=2), "are for block='bottleneck'"),
    ("resnet50", dict(groups=0), "must be at least 1"),
    ("resnet50", dict(se_reduction=-16), "must be at least 1"),
    ("resnet50", dict(widths=(8, 8, 8, 8), width_per_group=4), "must be at least 1"),
    ("resnetv2_50", dict(widths=(64,)), "one entry for each stage"),
    ("alexnet", dict(widths=(64, 192)), "must be five numbers"),
    ("alexnet_original", dict(widths=(8, 15, 8, 8, 8)), "must be even with towers=2"),
    ("vgg16", dict(widths=(64, 128)), "one entry for each stage"),
    ("vgg16", dict(hidden=0), "hidden must be positive"),
    *((name, dict(bn_momentum=0.5, **changes), "bn_momentum=0.5 changes nothing without batch norm:"
       rf" leave it out \(None in a config\), or set {needed}") for name, changes, needed in (
           ("vgg11", {}, "batch_norm=True"), ("googlenet_original", {}, "norm='batch'"),
           ("simple_cnn", dict(batch_norm=False), "batch_norm=True"))),
    ("squeezenet1_1", dict(widths=(16, 32)), "one entry for each of the fire modules"),
    ("squeezenet1_1", dict(stem_kernel=0), "stem_width and stem_kernel must be positive"),
    ("simple_cnn", dict(widths=32), "widths must be a tuple of integers, got 32"),
    ("simple_cnn", dict(widths=()), "at least one width"),
    ("googlenet", dict(large_kernel=4), "large_kernel=4 must be odd"),
    ("googlenet", dict(stage_sizes=(2, 6, 2)), r"must be at most \(2, 5, 2\)"),
    ("googlenet", dict(stage_sizes=(2, 5)), r"must be at most \(2, 5, 2\)"),
    ("densenet121", dict(growth_rate=0), "growth_rate, stem_width and bottleneck must be 1"),
    ("densenet121", dict(compression=0.0), "compression above 0"),
    ("convnext_tiny", dict(widths=(96, 192)), "one entry for each stage"),
    ("lenet5", dict(padding="SAME"), "padding must be an integer or None"),
])
def test_a_mistaken_argument_is_a_user_error_that_says_which(name, arguments, message):
    with pytest.raises(UserError, match=message):
        create_model(name, **arguments)


def test_an_argument_without_effect_is_taken_at_its_own_value_and_where_it_has_one():
    assert create_model("vgg11", **model_arguments("vgg11")).bn_momentum == 0.9
    for name, changes in (("vgg11_bn", {}), ("vgg11", dict(batch_norm=True)), ("googlenet", {}),
                          ("simple_cnn", {})):
        assert create_model(name, bn_momentum=0.5, **changes).bn_momentum == 0.5


def test_an_unknown_endpoint_lists_those_there_are():
    model, x = create_model("simple_cnn", 10), specs("simple_cnn")
    with pytest.raises(UserError, match="'stage4'.*Did you mean 'stage3'.*conv1, stage1, conv2"):
        jax.eval_shape(functools.partial(model.apply, capture=("stage1", "stage4")),
                       shapes(model, x), x)


@pytest.mark.parametrize("shape,layer", [((1, 64, 64, 1), "fc1"), ((1, 28, 28, 3), "conv1")])
def test_images_that_the_parameters_were_not_made_for_are_a_user_error(shape, layer):
    model = create_model("lenet5", 10)
    variables = shapes(model, specs("lenet5"))
    with pytest.raises(UserError, match=f"{layer}: its parameters take .* another size or number"):
        jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_an_image_too_small_is_a_user_error():
    with pytest.raises(UserError, match="does not fit a .* map .* input image is too small"):
        shapes(create_model("lenet5", 10), jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32))


def test_every_module_is_known_by_the_name_and_arguments_that_create_it():
    for name in list_models():
        module = create_model(name, 7, dtype="bfloat16")
        found, arguments = identify(module)
        assert create_model(found, 7, **arguments) == module
        assert lookup(found) == lookup(name) and set(arguments) == {"dtype"}
    assert identify(create_model("resnet50", 7, zero_init_residual=True)) == (
        "resnet50", {"zero_init_residual": True})
    # efficientnet_b0 with another trunk needs as many, two of which its row has.
    small = dict(width=0.5, depth=0.5, bn_epsilon=1e-5)
    assert identify(create_model("efficientnet_v2_s", 7, **small)) == ("efficientnet_v2_s", small)


@pytest.mark.parametrize("name", ["efficientnet_v2_l", "tf_efficientnetv2_m", "seresnet50"])
def test_how_a_module_trains_does_not_make_it_another_net(name):
    changes = {"zero_init_residual": False} if name == "seresnet50" else {"dropout_rate": 0.17}
    assert identify(create_model(name, 5, **changes)) == (name, changes)


def test_a_module_of_no_row_has_no_name():
    with pytest.raises(UserError, match="No model of the table is a Dense"):
        identify(nn.Dense(3))
