"""The layers' own promises: initial values, statistics, and the architectures' particulars."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import trees
from cnnjax.models import convnext, create_model
from cnnjax.models.initializers import he_normal
from cnnjax.models.layers import BatchNorm, Conv, Dense, MaxPool
from cnnjax.models.lenet import TABLE_I, SparseConv
from cnnjax.models.parts import DropPath, SqueezeExcite
from cnnjax.types import UserError


def initial(layer, shape):
    return jax.jit(layer.init)(jax.random.key(0), jnp.zeros(shape))["params"]


@pytest.mark.parametrize("layer,shape,fan_in", [
    (Conv(64, 3, use_bias=True), (1, 8, 8, 16), 144),
    (Conv(64, 3, groups=4, use_bias=True), (1, 8, 8, 64), 144),
    (Dense(300), (1, 100), 100),
])
def test_the_default_initialisation_is_torchs_uniform(layer, shape, fan_in):
    bound = fan_in ** -0.5
    for leaf in initial(layer, shape).values():
        assert np.abs(leaf).max() <= bound
        assert np.abs(leaf).max() > 0.9 * bound
        assert abs(np.mean(leaf)) < 0.2 * bound


@pytest.mark.parametrize("rule,fan", [("fan_in", 9 * 32), ("fan_out", 9 * 128)])
def test_he_initialisation_has_variance_two_over_the_fan(rule, fan):
    kernel = initial(Conv(128, 3, kernel_init=he_normal(rule)), (1, 8, 8, 32))["kernel"]
    assert np.isclose(np.std(kernel), (2 / fan) ** 0.5, rtol=0.02)
    # Not truncated: one in 16,000 normal values lies beyond four standard deviations.
    assert np.abs(kernel).max() > 3.5 * np.std(kernel)


HALF = dict(dtype=jnp.bfloat16)


@pytest.mark.parametrize("layer,name,shape,slope", [
    (Conv(4, 3, use_bias=True, **HALF), "bias", (2, 48, 48, 4), 2 * 48 * 48),
    (Dense(4, **HALF), "bias", (2, 48, 48, 4), 2 * 48 * 48),
    (SparseConv(TABLE_I, 5, **HALF), "bias", (2, 52, 52, 6), 2 * 48 * 48),
    # The slope of the gate at 0 is a quarter.
    (SqueezeExcite(4, **HALF), "expand/bias", (2, 48, 48, 4), 2 * 48 * 48 / 4),
    (convnext.Block(1.0, 0.0, True, functools.partial(Conv, **HALF),
                    functools.partial(Dense, **HALF)), "layer_scale", (2, 48, 48, 4), 2 * 48 * 48),
], ids=["conv", "dense", "sparse conv", "squeeze-excite", "layer scale"])
def test_a_slope_over_all_positions_is_summed_in_float32_in_a_bfloat16_model(
        layer, name, shape, slope):
    x = jnp.ones(shape, jnp.bfloat16)
    # Kernels of zeros leave what stands beside them; in ConvNeXt's block, the second bias.
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full(leaf.shape, "fc2" in str(path) and leaf.ndim == 1, jnp.float32),
        jax.eval_shape(layer.init, jax.random.key(0), x)["params"])
    grads = jax.jit(jax.grad(lambda params: layer.apply(
        {"params": params}, x).astype(jnp.float32).sum()))(params)
    np.testing.assert_array_equal(trees.named_leaves(grads)[name], slope)


@pytest.mark.parametrize("name,fan", [("resnet18", 9 * 64), ("resnet20_cifar", 9 * 32)])
def test_a_resnet_starts_with_its_own_convolutions_and_torchs_head(name, fan):
    model = create_model(name, 100, stage_sizes=(1, 1), widths=(32, 64), stem="cifar")
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    kernel = params["stage2_block1"]["conv1"]["kernel"]
    assert np.isclose(np.std(kernel), (2 / fan) ** 0.5, rtol=0.05)
    assert np.isclose(np.abs(params["head"]["kernel"]).max(), 64 ** -0.5, rtol=0.05)
    scales = [leaf for path, leaf in trees.named_leaves(params).items() if "scale" in path]
    assert all((scale == 1).all() for scale in scales)


@functools.cache
def traced(model, side=32):
    """{path: layer} and {path: shape of a parameter} of a model; nothing is computed."""
    found = {}

    def record(next_call, args, kwargs, context):
        output = next_call(*args, **kwargs)
        if context.method_name == "__call__":
            found["/".join(context.module.path)] = context.module.clone(parent=None)
        return output

    with nn.intercept_methods(record):
        variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    leaves = trees.named_leaves(variables["params"])
    return found, {path: leaf.shape for path, leaf in leaves.items()}


START = {"googlenet": dict(aux_logits=True),
         "googlenet_original": dict(aux_logits=True, aux_pool="adaptive"),
         "inception_v3": dict(aux_logits=True), "densenet121": dict(stage_sizes=(1, 1)),
         "efficientnet_b0": dict(width=0.25, depth=0.1), "mobilenet_v2": dict(width=0.25),
         "mobilenet_v3_small": dict(width=0.25), "vgg11": dict(hidden=64, stage_sizes=(1,) * 5),
         "resnetv2_50": dict(stage_sizes=(1, 1), widths=(16, 32))}


@pytest.mark.parametrize("name,side,layer,std", [
    ("googlenet", 32, "stage2_block1/branch2_conv2", 0.01),
    ("googlenet", 32, "aux1/fc1", 0.01),
    ("googlenet", 32, "head", 0.01),
    ("googlenet_original", 32, "stage2_block1/branch2_conv2", (9 * 96) ** -0.5),
    ("inception_v3", 299, "stage2_block2/branch2_conv2", 0.1),
    ("inception_v3", 299, "aux1/conv2", 0.1),
    ("inception_v3", 299, "aux1/head", 0.001),
    ("densenet121", 32, "stage2_block1/conv2", (2 / (9 * 128)) ** 0.5),
    ("densenet121", 32, "head", (3 * 80) ** -0.5),
    ("convnext_tiny", 32, "stage2_block1/fc1", 0.02),
    ("convnext_tiny", 32, "stage1_block1/conv", 0.02),
    ("efficientnet_b0", 32, "head", (3 * 100) ** -0.5),  # U(-b, b) of b = 1 / sqrt(outputs).
    ("mobilenet_v2", 32, "head", 0.01), ("mobilenet_v3_small", 32, "head", 0.01),
    ("mobilenet_v2", 32, "stage7_block1/project_conv", (2 / 80) ** 0.5),
    ("vgg11", 32, "stage2_conv1", (2 / (9 * 128)) ** 0.5), ("vgg11", 32, "head", 0.01),
    ("squeezenet1_1", 32, "head", 0.01), ("resnetv2_50", 32, "head", 0.01),
])
def test_kernels_start_with_the_published_deviation(name, side, layer, std):
    layers, shapes = traced(create_model(name, 100, **START.get(name, {})), side)
    kernel = layers[layer].kernel_init(jax.random.key(0), shapes[f"{layer}/kernel"])
    assert np.isclose(np.std(kernel), std, rtol=0.05)


@pytest.mark.parametrize("name,layer,value", [
    ("googlenet_original", "stem_conv1", 0.2), ("googlenet_original", "aux1/fc1", 0.2),
    ("googlenet_original", "aux2/head", 0), ("googlenet_original", "head", 0),
    ("densenet121", "head", 0), ("convnext_tiny", "stage1_block1/conv", 0),
    ("convnext_tiny", "stage1_block1/fc1", 0), ("convnext_tiny", "head", 0),
    ("efficientnet_b0", "stage1_block1/squeeze/expand", 0), ("efficientnet_b0", "head", 0)])
def test_biases_start_with_the_published_value(name, layer, value):
    layers, _ = traced(create_model(name, 100, **START.get(name, {})))
    np.testing.assert_array_equal(layers[layer].bias_init(jax.random.key(0), (4,)),
                                  np.float32(value))


@pytest.mark.parametrize("name,arguments,side,momentum,epsilon", [
    ("googlenet", {}, 32, 0.9, 1e-3), ("inception_v3", {}, 299, 0.9, 1e-3),
    ("densenet121", {}, 32, 0.9, 1e-5), ("efficientnet_b0", {}, 32, 0.9, 1e-5),
    ("efficientnet_b5", dict(width=0.25, depth=0.1), 32, 0.99, 1e-3),
    ("mobilenet_v3_small", {}, 32, 0.99, 1e-3)])
def test_batch_norms_have_torchvisions_momentum_and_epsilon(name, arguments, side, momentum,
                                                            epsilon):
    layers, _ = traced(create_model(name, 100, **START.get(name, {}), **arguments), side)
    found = {(layer.momentum, layer.epsilon) for layer in layers.values()
             if isinstance(layer, BatchNorm)}
    assert found == {(momentum, epsilon)}


def test_inceptions_auxiliary_convolution_of_5_pixels_sees_the_whole_map_once():
    layers, _ = traced(create_model("inception_v3", 100, **START["inception_v3"]), 299)
    assert layers["aux1/conv2"].padding == 0


def test_googlenets_response_normalisation_has_the_constants_of_caffes_replication():
    # bvlc_googlenet: local_size 5, alpha 1e-4 (over the mean of the five), beta 0.75, and k 1.
    x = 100 * np.random.default_rng(0).standard_normal(9).astype(np.float32)
    energy = np.convolve(np.square(x), np.ones(5), "same") / 5
    found = create_model("googlenet_original", 10)._respond(x.reshape(1, 1, 1, 9))
    np.testing.assert_allclose(np.ravel(found), x / (1 + 1e-4 * energy) ** 0.75, rtol=1e-5)


@pytest.mark.parametrize("name,side,rates", [
    ("alexnet", 64, [0.5, 0.5]), ("alexnet_original", 64, [0.5, 0.5]), ("vgg11", 32, [0.5, 0.5]),
    ("googlenet", 32, [0.7, 0.7, 0.2]), ("googlenet_original", 32, [0.7, 0.7, 0.4]),
    ("inception_v3", 299, [0.5]), ("squeezenet1_1", 32, [0.5]), ("mobilenet_v2", 32, [0.2]),
    ("mobilenet_v3_small", 32, [0.2]), ("densenet121", 32, []), ("convnext_tiny", 32, [])])
def test_a_model_drops_as_published(name, side, rates):
    """At torchvision's rates, and the papers' (section 4.2 of NIPS 2012, 5 and 6 of 1409.4842)."""
    layers, _ = traced(create_model(name, 100, **START.get(name, {})), side)
    assert [layer.rate for layer in layers.values()
            if isinstance(layer, nn.Dropout) and layer.rate] == rates


def test_efficientnets_drop_the_more_the_larger_they_are_as_in_torchvision():
    rates = {name: create_model(name).dropout_rate for name in (
        *(f"efficientnet_b{i}" for i in range(8)), *(f"efficientnet_v2_{size}" for size in "sml"))}
    assert list(rates.values()) == [0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5, 0.2, 0.3, 0.4]
    assert {create_model(name).drop_path_rate for name in rates} == {0.2}


def test_densenets_layers_drop_at_a_rate_of_their_own():
    layers, _ = traced(create_model("densenet121", 10, stage_sizes=(1, 1), dropout_rate=0.5,
                                    layer_dropout_rate=0.2))
    rates = [layer.rate for layer in layers.values() if isinstance(layer, nn.Dropout)]
    assert rates == [0.2, 0.2, 0.5]


def test_an_empty_batch_has_no_statistics():
    model = create_model("simple_cnn", 10, widths=(4,))
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    assert model.apply(variables, jnp.zeros((0, 8, 8, 3))).shape == (0, 10)
    with pytest.raises(UserError, match="norm1: an empty batch has no statistics"):
        model.apply(variables, jnp.zeros((0, 8, 8, 3)), train=True, mutable="batch_stats")


def test_convnexts_layer_scale_starts_at_a_millionth():
    model = create_model("convnext_tiny", 10, stage_sizes=(1,), widths=(8,))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    np.testing.assert_array_equal(params["stage1_block1"]["layer_scale"], np.float32(1e-6))


@pytest.mark.parametrize("name,blocks,last", [("convnext_tiny", 18, 0.1),
                                              ("convnext_base", 36, 0.5)])
def test_convnext_drops_more_the_deeper_and_the_last_block_at_the_full_rate(name, blocks, last):
    layers, _ = traced(create_model(name, 10))
    rates = [layer.rate for layer in layers.values() if isinstance(layer, DropPath)]
    np.testing.assert_allclose(rates, np.linspace(0, last, blocks), atol=1e-12)


def test_zero_init_residual_starts_every_block_as_its_shortcut():
    model = create_model("resnet20_cifar", 10, stage_sizes=(1, 1), widths=(4, 8),
                         zero_init_residual=True)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    apply = jax.jit(functools.partial(model.apply, capture=("stem", "stage1", "stage2")))
    _, found = apply(variables, x)
    np.testing.assert_array_equal(found["stem"], found["stage1"])
    half = found["stem"][:, ::2, ::2]
    np.testing.assert_array_equal(found["stage2"], np.pad(half, ((0, 0),) * 3 + ((2, 2),)))


def test_momentum_is_a_decay_and_the_running_variance_unbiased():
    x = np.random.default_rng(0).normal(3, 2, (2, 3, 1, 4)).astype(np.float32)
    norm = BatchNorm(train=True, momentum=0.75)
    variables = jax.jit(norm.init)(jax.random.key(0), x)
    _, updated = norm.apply(variables, x, mutable=["batch_stats"])
    stats = updated["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.25 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.75 + 0.25 * x.var((0, 1, 2), ddof=1), rtol=1e-5)


def test_in_evaluation_the_running_statistics_normalise_and_stay():
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    norm = BatchNorm(train=False, epsilon=1e-3)
    stats = {"mean": np.float32([1, 2, 3, 4]), "var": np.float32([4, 3, 2, 1])}
    params = {"scale": np.float32([1, -1, 2, 0.5]), "bias": np.float32([0, 1, 2, 3])}
    y, updated = norm.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
    expected = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-3) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, dict(updated["batch_stats"]), stats)


def test_one_value_a_channel_cannot_be_trained_on():
    norm = BatchNorm(train=True)
    x = jnp.ones((1, 1, 1, 4))
    variables = jax.jit(norm.init)(jax.random.key(0), x)
    with pytest.raises(UserError, match="no variance to train with; use a larger batch"):
        norm.apply(variables, x, mutable=["batch_stats"])


def test_the_sparse_convolution_is_the_full_one_with_table_i_for_a_mask():
    layer = SparseConv(TABLE_I, 5)
    x = np.random.default_rng(0).normal(size=(2, 14, 14, 6)).astype(np.float32)
    params = initial(layer, x.shape)
    assert trees.count(params) == 1516
    dense, slices = np.zeros((5, 5, 6, 16), np.float32), iter(np.moveaxis(params["kernel"], -1, 0))
    for target, sources in enumerate(TABLE_I):
        for source in sources:
            dense[:, :, source, target] = next(slices)
    full = Conv(16, 5, padding=0, use_bias=True)
    expected = full.apply({"params": {"kernel": dense, "bias": params["bias"]}}, x)
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=1e-5)


def test_table_i_connects_as_in_the_paper():
    assert [len(sources) for sources in TABLE_I] == [3] * 6 + [4] * 9 + [6]
    assert [sum(source in sources for sources in TABLE_I) for source in range(6)] == [10] * 6


@pytest.mark.parametrize("size,first", [(28, 28), (32, 28), (31, 31)])
def test_lenet5_pads_what_is_smaller_than_the_papers_32_pixels(size, first):
    model, x = create_model("lenet5", 10), jnp.zeros((1, size, size, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    _, found = jax.eval_shape(
        functools.partial(model.apply, capture=("conv1", "stage2")), variables, x)
    assert found["conv1"].shape == (1, first, first, 6)
    assert found["stage2"].shape == (1, 5, 5, 16)


def test_simple_cnn_is_conv_relu_pool_n_times_then_dense_m_times():
    model = create_model("simple_cnn", 10, widths=(8, 16), hidden=(32, 24), batch_norm=False,
                         global_pool=False)
    x = jnp.zeros((2, 28, 28, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert set(variables) == {"params"}
    assert {name: layer["kernel"].shape for name, layer in variables["params"].items()} == {
        "conv1": (3, 3, 1, 8), "conv2": (3, 3, 8, 16), "fc1": (7 * 7 * 16, 32), "fc2": (32, 24),
        "head": (24, 10)}


def test_efficientnet_drops_as_in_torchvision_where_a_block_has_a_shortcut():
    # Block i of 16 at the rate 0.2 i / 16; those that change the shape have nothing to drop.
    layers, _ = traced(create_model("efficientnet_b0", 10, drop_path_rate=0.2))
    rates = [layer.rate for layer in layers.values() if isinstance(layer, DropPath)]
    np.testing.assert_allclose(rates, 0.2 * np.array([2, 4, 6, 7, 9, 10, 12, 13, 14]) / 16)


def test_a_pool_that_rounds_up_drops_a_window_of_padding_alone():
    # torch's MaxPool2d(2, 2, padding=1, ceil_mode=True): 2 of the 3 rows that the formula has.
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    np.testing.assert_array_equal(MaxPool(2, 2, 1, ceil_mode=True)(x)[0, ..., 0], [[0, 2], [6, 8]])


def test_what_stochastic_depth_keeps_makes_up_for_what_it_drops():
    y = DropPath(0.25, train=True).apply({}, jnp.ones((4000, 2)),
                                         rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert y.mean() == pytest.approx(1, abs=0.03) and (y[:, 0] == y[:, 1]).all()
