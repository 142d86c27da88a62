"""Compound scaling, and the networks it gives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnnjax
from cnnjax import trees
from cnnjax.models import create_model, lookup
from cnnjax.models.efficientnet import TRUNKS
from cnnjax.models.mbconv import FusedMBConv, makers
from cnnjax.models.parts import DropPath
from cnnjax.models.scaling import compound_scaling, round_channels, round_repeats
from cnnjax.types import UserError


def test_phi_scales_depth_width_and_resolution_as_equation_3():
    assert cnnjax.compound_scaling(0) == (1.0, 1.0, 1.0)
    scaling = cnnjax.compound_scaling(1)
    assert (scaling.depth, scaling.width, scaling.resolution) == (1.2, 1.1, 1.15)
    np.testing.assert_allclose(compound_scaling(2.5, 2.0, 1.5, 1.0), (2**2.5, 1.5**2.5, 1.0))
    np.testing.assert_allclose(compound_scaling(-1), (1 / 1.2, 1 / 1.1, 1 / 1.15))


def test_a_unit_of_phi_doubles_the_cost_nearly():
    """The constraint of equation 3: alpha · beta² · gamma² is about 2."""
    depth, width, resolution = compound_scaling(1)
    assert depth * width**2 * resolution**2 == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("arguments", [
    (float("nan"),), (float("inf"),), ("3",), (None,), (1, 0.9), (1, 1.2, float("nan")),
    (1, 1.2, 1.1, 0.0), (1e6,)])
def test_what_cannot_scale_is_a_value_error_that_says_so(arguments):
    with pytest.raises(ValueError, match="compound_scaling: "):
        compound_scaling(*arguments)


@pytest.mark.parametrize(("given", "rounded"), [
    (32, 32), (35.2, 32), (36, 40), (17.6, 16), (17.9, 24), (26.4, 24), (11, 16), (12, 16),
    (8.8, 8), (1, 8)])
def test_channels_are_rounded_to_eights_but_never_below_nine_tenths(given, rounded):
    assert round_channels(given) == rounded
    assert rounded >= 0.9 * given


@pytest.mark.parametrize(("given", "rounded"), [
    (1, 1), (1.1, 2), (2.4, 3), (4, 4), (10 * 1.1, 11), (3 * 1.1, 4), (1e-12, 1)])
def test_blocks_are_rounded_up_but_not_for_the_last_bit_of_a_float(given, rounded):
    assert round_repeats(given) == rounded


# (width, depth, resolution, dropout) of B0 to B7, in the authors' code.
PUBLISHED = ((1.0, 1.0, 224, 0.2), (1.0, 1.1, 240, 0.2), (1.1, 1.2, 260, 0.3), (1.2, 1.4, 300, 0.3),
             (1.4, 1.8, 380, 0.4), (1.6, 2.2, 456, 0.4), (1.8, 2.6, 528, 0.5), (2.0, 3.1, 600, 0.5))


def test_b0_to_b7_have_the_published_width_depth_resolution_and_dropout():
    for i, row in enumerate(PUBLISHED):
        for name in (f"efficientnet_b{i}", f"tf_efficientnet_b{i}"):
            model, size = create_model(name), lookup(name).input_size[0]
            if name == "efficientnet_b2":  # torchvision evaluates its weights at 288.
                assert size == 288
                size = 260
            assert (model.width, model.depth, size, model.dropout_rate) == row


def test_published_stages_of_b7_are_b0s_scaled_by_its_row():
    """Table of widths and depths in the authors' code: (2.0, 3.1)."""
    stages = create_model("efficientnet_b7").stages()
    assert [row.channels for row in stages] == [32, 48, 80, 160, 224, 384, 640]
    assert [row.repeats for row in stages] == [4, 7, 7, 10, 10, 13, 4]
    assert create_model("efficientnet_b0", width=2.0, depth=3.1, dropout_rate=0.5, bn_epsilon=1e-3,
                        bn_momentum=0.99) == create_model("efficientnet_b7")


def test_a_resnet_and_the_plain_cnn_scale_with_the_rounding_of_efficientnet():
    assert create_model("resnet50", depth=1.2, width=1.1).sizes == (
        (4, 72), (5, 144), (8, 280), (4, 560))
    assert create_model("resnet20_cifar", depth=1.1, width=1.5).sizes == ((4, 24), (4, 48), (4, 96))
    net = create_model("simple_cnn", 10, depth=2.0, width=1.1)
    assert net.sizes == ((2, 32), (2, 72), (2, 144))
    params = shapes(net)["params"]
    assert params["conv2"]["kernel"].shape == (3, 3, 32, 72)
    assert params["conv2_2"]["kernel"].shape == (3, 3, 72, 72) and "norm2_2" in params


@pytest.mark.parametrize(("name", "more"), [
    ("resnet18", dict(widths=(5, 12, 20, 33))), ("simple_cnn", dict(widths=(4, 9)))])
def test_unscaled_widths_are_left_as_they_are(name, more):
    assert tuple(width for _, width in create_model(name, 10, **more).sizes) == more["widths"]


def test_a_resnet_of_another_width_is_built_of_other_widths():
    """With multiples of 8 throughout, a multiplier and the widths that it gives are one network."""
    scaled = create_model("resnet20_cifar", 10, width=1.5, depth=2 / 3)
    written = create_model("resnet20_cifar", 10, widths=(24, 48, 96), stage_sizes=(2, 2, 2))
    assert shapes(scaled) == shapes(written)


@pytest.mark.parametrize(("name", "more"), [
    ("resnet18", dict(widths=(8, 8, 8, 8))), ("efficientnet_b0", dict(width=0.01, depth=0.1)),
    ("efficientnet_v2_s", dict(width=0.01, depth=0.1)), ("mobilenet_v3_small", {})])
def test_what_a_block_adds_is_a_matter_of_stride_and_channels_and_not_of_the_images(name, more):
    """Images of two pixels become maps of one, whose shape a stride of 2 keeps."""
    model, calls = create_model(name, 10, **more), []

    def count(run, args, kwargs, context):
        calls[-1] += isinstance(context.module, DropPath)
        return run(*args, **kwargs)

    def parameters(side):
        calls.append(0)
        with nn.intercept_methods(count):
            return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))

    assert trees.count(parameters(2)["params"]) == trees.count(parameters(64)["params"])
    assert calls[0] == calls[1] > 0


def test_lite_nets_keep_stem_head_and_the_depth_of_the_first_and_last_stage():
    model = create_model("efficientnet_lite4")
    assert [row.repeats for row in model.stages()] == [1, 4, 4, 6, 6, 8, 1]
    variables = shapes(model)
    assert variables["params"]["stem_conv"]["kernel"].shape == (3, 3, 3, 32)
    assert variables["params"]["head_conv"]["kernel"].shape[-1] == 1280
    assert not any("squeeze" in path for path in trees.named_leaves(variables))


@pytest.mark.parametrize("name", ["efficientnet_b0", "tf_efficientnet_lite0", "efficientnet_v2_s"])
def test_any_phi_gives_a_network_and_a_larger_one_no_less_depth_or_width(name):
    found = []
    for phi in (-20.0, -2.5, 0.0, 0.3, 1.0, 3.7, 9.0):
        depth, width, _ = compound_scaling(phi)
        stages = create_model(name, num_classes=10, depth=depth, width=width).stages()
        assert all(row.repeats >= 1 and row.channels >= 8 for row in stages)
        found.append([(row.repeats, row.channels) for row in stages])
    found = np.array(found)
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found.prod(-1).sum(-1)) > 0).all()


def test_a_network_of_a_fractional_phi_takes_images_of_any_size():
    depth, width, _ = compound_scaling(-2.5)
    model = create_model("efficientnet_b0", num_classes=10, depth=depth, width=width)
    for size in ((1, 64, 64, 3), (2, 37, 75, 3)):
        assert jax.eval_shape(model.apply, shapes(model), jnp.zeros(size)).shape == (size[0], 10)


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0),
                          jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))


@pytest.mark.parametrize("trunk", TRUNKS)
def test_stages_shrink_the_map_32_times_as_published(trunk):
    model = create_model("efficientnet_b0", 10, trunk=trunk, depth=0.1, width=0.1)
    x = jnp.zeros((1, 64, 96, 3))
    last = model.endpoints[-3]
    _, found = jax.eval_shape(lambda v: model.apply(v, x, capture=("stem", last)), shapes(model))
    assert found["stem"].shape[1:3] == (32, 48)
    assert found[last].shape[1:3] == (2, 3)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v2", "mobilenet_v3_small",
                                  "resnet20_cifar", "simple_cnn"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_width_that_is_no_multiplier_is_a_user_error(name, value):
    with pytest.raises(UserError, match=f"width .* finite number above 0, got {value}"):
        create_model(name, width=value)
    if "mobilenet" not in name:
        with pytest.raises(UserError, match="depth .* finite number above 0"):
            create_model(name, depth=value)


def test_mobilenet_v2_has_seven_stages():
    with pytest.raises(UserError, match="one entry for each of the 7 stages"):
        create_model("mobilenet_v2", repeats=(1, 2))


def test_tensorflow_and_torchvision_disagree_on_b2s_resolution_and_on_depthwise_fans():
    """torchvision doesn't divide a depthwise kernel's fan-out by its groups."""
    assert lookup("efficientnet_b2").input_size[0] == 288
    assert lookup("tf_efficientnet_b2").input_size[0] == 260
    for name, variance in (("efficientnet_b2", 2 / (25 * 400)), ("tf_efficientnet_b2", 2 / 25)):
        layers = makers(train=False, dtype=jnp.float32, bn_momentum=0.9, bn_epsilon=1e-3,
                        squeeze_activation=jax.nn.silu,
                        depthwise_init=create_model(name).depthwise_init)
        kernel = layers["depthwise"].keywords["kernel_init"](jax.random.key(0), (5, 5, 1, 400))
        assert kernel.var() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize(("hidden", "linear"), [(4, False), (8, True)])
def test_a_fused_block_ends_linearly_unless_it_is_one_convolution_alone(hidden, linear):
    layers = makers(train=False, dtype=jnp.float32, bn_momentum=0.9, bn_epsilon=1e-3,
                    squeeze_activation=jax.nn.relu)
    block = FusedMBConv(6, 3, 2, hidden, jax.nn.relu, layers["conv"], layers["norm"], None)
    y, _ = jax.jit(block.init_with_output)(jax.random.key(0), jnp.ones((1, 6, 6, 4)))
    assert y.max() > 0 and (y.min() < 0) == linear
