"""Receptive fields against published ones, and each rule against arithmetic on paper."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

import cnnjax
import cnnjax.models
from cnnjax.analysis import endpoint_fields
from cnnjax.models.layers import AvgPool, Conv, Dense, GlobalAvgPool, MaxPool
from cnnjax.models.parts import AdaptiveAvgPool
from cnnjax.types import UserError


class Net(nn.Module):
    """A network of a few lines: `body(x)` within a compact call."""

    body: object

    @nn.compact
    def __call__(self, x, train=False):
        return self.body(x)


def fields(body, size=64, channels=4):
    found = cnnjax.receptive_field(Net(body), (1, size, size, channels))
    return {field.name: field for field in found}


def field(body, size=64, channels=4):
    """Size, stride and start of the last layer, which must be the same along both axes."""
    last = list(fields(body, size, channels).values())[-1]
    assert not last.sees_all
    pairs = (last.size, last.stride, last.start)
    assert all(h == w for h, w in pairs)
    return tuple(h for h, _ in pairs)


def alexnet(x):
    """torchvision's, without the dense layers: arXiv 1404.5997."""
    for i, (features, kernel, stride, pad, pool) in enumerate([
            (64, 11, 4, 2, True), (192, 5, 1, 2, True), (384, 3, 1, 1, False),
            (256, 3, 1, 1, False), (256, 3, 1, 1, True)], 1):
        x = nn.relu(Conv(features, kernel, stride, pad, name=f"conv{i}")(x))
        x = MaxPool(3, 2, name=f"pool{i}")(x) if pool else x
    return x


def vgg16(x):
    """arXiv 1409.1556, configuration D, a sixteenth as wide and without the dense layers."""
    for stage, (depth, width) in enumerate([(2, 4), (2, 8), (3, 16), (3, 32), (3, 32)], 1):
        for i in range(1, depth + 1):
            x = nn.relu(Conv(width, 3, name=f"conv{stage}_{i}")(x))
        x = MaxPool(2, name=f"pool{stage}")(x)
    return x


@pytest.mark.parametrize(("body", "before", "at_pool5"), [(alexnet, 163, 195), (vgg16, 196, 212)])
def test_alexnet_and_vgg16_see_what_araujo_et_al_publish(body, before, at_pool5):
    *_, conv, pool = fields(body, 224, 3).values()
    assert (conv.size, pool.size) == ((before, before), (at_pool5, at_pool5))
    assert pool.name == "pool5" and pool.stride == (32, 32)


@pytest.mark.parametrize(("name", "published"), [
    ("resnet50", 427), pytest.param("resnet101", 971, marks=pytest.mark.slow),
    pytest.param("resnet152", 1451, marks=pytest.mark.slow)])
def test_resnets_see_what_araujo_et_al_publish_and_are_not_clipped_to_the_image(name, published):
    *_, conv, pool, head = cnnjax.receptive_field(cnnjax.create_model(name), (1, 64, 64, 3))
    assert conv.name == "stage4_block3/conv3"
    assert conv.size == (published, published) and conv.stride == (32, 32)
    assert conv.start == (-(published // 2), -(published // 2))
    assert not conv.sees_all and pool.sees_all and head.sees_all
    assert (pool.name, pool.size) == ("pool", conv.size)


@pytest.mark.parametrize(("name", "before", "at_last_pool"), [
    ("alexnet", 163, 195), ("vgg16", 196, 212), ("vgg16_bn", 196, 212)])
def test_alexnet_and_vgg16_of_the_table_see_the_same(name, before, at_last_pool):
    found = cnnjax.receptive_field(cnnjax.create_model(name), (1, 224, 224, 3))
    sizes = [f.size[0] for f in found if not f.sees_all]
    assert max(sizes) == at_last_pool and max(set(sizes) - {at_last_pool}) == before


def test_two_3x3_see_what_one_5x5_sees_and_three_what_one_7x7_sees():
    assert field(lambda x: Conv(2, 3)(Conv(2, 3)(x))) == field(lambda x: Conv(2, 5)(x))
    assert (field(lambda x: Conv(2, 3)(Conv(2, 3)(Conv(2, 3)(x))))
            == field(lambda x: Conv(2, 7)(x)) == (7, 1, -3))


@pytest.mark.parametrize(("layer", "size", "expected"), [
    # TensorFlow's SAME puts the odd pixel at the bottom: none above a 3x3 of stride 2 at 64 px.
    (lambda: Conv(2, 3, 2, "SAME"), 64, (3, 2, 0)),
    (lambda: Conv(2, 3, 2, "SAME"), 63, (3, 2, -1)),
    (lambda: Conv(2, 5, 2, "SAME"), 64, (5, 2, -1)),
    (lambda: Conv(2, 3, 2), 64, (3, 2, -1)),
    (lambda: Conv(2, 3, 1, ((0, 2), (0, 2))), 64, (3, 1, 0)),
    (lambda: Conv(4, 3, groups=4), 64, (3, 1, -1)),
    (lambda: nn.Conv(4, (3, 3), kernel_dilation=2, padding="VALID"), 64, (5, 1, 0)),
    (lambda: MaxPool(3, 2, ((0, 1), (0, 1))), 64, (3, 2, 0)),
    (lambda: MaxPool(3, 1, 1), 64, (3, 1, -1)),
    (lambda: AvgPool(3, 1, 1, count_include_pad=False), 64, (3, 1, -1)),
    (lambda: AvgPool(2), 64, (2, 2, 0)),
])
def test_padding_stride_groups_and_dilation_of_one_layer(layer, size, expected):
    assert field(lambda x: layer()(x), size) == expected


def test_height_and_width_are_counted_apart():
    *_, last = fields(lambda x: Conv(2, (7, 1))(Conv(2, (1, 3), (1, 2))(x))).values()
    assert (last.size, last.stride, last.start) == ((7, 3), (1, 2), (-3, -1))


def test_branches_that_are_concatenated_or_added_see_their_union():
    def branches(join):
        def body(x):
            a, b = Conv(4, 1, 2)(x), Conv(4, 5, 2, ((0, 4), (0, 4)))(x)
            c = MaxPool(3, 2, 1)(x)
            return AvgPool(1, name="last")(join(a, b, c))
        return body
    # From pixel -1, of the pool, to pixel 4, of the 5x5 without padding above.
    expected = (6, 2, -1)
    assert field(branches(lambda a, b, c: jnp.concatenate([a, b, c], -1))) == expected
    assert field(branches(lambda a, b, c: nn.relu(a + b) * c)) == expected


def test_a_dense_block_sees_what_its_longest_path_sees():
    def body(x):
        for _ in range(3):
            x = jnp.concatenate([x, Conv(2, 3)(nn.relu(x))], -1)
        return AvgPool(2, name="last")(x)
    assert field(body) == (8, 2, -3)


def test_a_squeeze_excite_gate_is_flagged_and_not_followed():
    def body(x):
        x = Conv(8, 3, name="conv")(x)
        gate = nn.sigmoid(Dense(8, name="gate")(nn.relu(Dense(2, name="squeeze")(x.mean((1, 2))))))
        x = x * gate[:, None, None]
        wide = Conv(8, 1, name="gate_conv")(x.mean((1, 2), keepdims=True))
        return Conv(8, 3, name="last")(x * nn.hard_sigmoid(wide))
    found = fields(body)
    assert [name for name, f in found.items() if f.sees_all] == ["squeeze", "gate", "gate_conv"]
    assert found["last"].size == (5, 5)
    # The numbers of a flagged layer are those of the map that it looks at.
    assert found["gate"].size == found["conv"].size == (3, 3)


def test_layer_norm_layer_scale_and_pointwise_dense_layers_change_nothing():
    def block(x):
        y = nn.LayerNorm()(Conv(4, 7, groups=4)(x))
        y = Dense(4)(nn.gelu(Dense(16)(y)))
        return AvgPool(1, name="last")(x + y * jnp.full((4,), 1e-6))
    assert field(block) == (7, 1, -3)


def test_slices_pads_reshapes_and_transposes_keep_track_of_the_pixels():
    assert field(lambda x: AvgPool(1)(x[:, 3::2, 3::2])) == (1, 2, 3)
    assert field(lambda x: AvgPool(1)(jnp.pad(x, ((0, 0), (2, 1), (2, 1), (0, 3))))) == (1, 1, -2)
    assert field(lambda x: Conv(2, 3)(x.transpose(0, 3, 1, 2).transpose(0, 2, 3, 1))) == (3, 1, -1)

    def shuffled(x):
        n, h, w, c = x.shape
        x = x.reshape(n, h, w, 2, c // 2).swapaxes(3, 4).reshape(n, h, w, c)
        rows = x.reshape(n * h * w, c) @ jnp.ones((c, 3))
        return Conv(2, 3)(rows.reshape(n, h, w, 3))
    assert field(shuffled) == (3, 1, -1)

    def space_to_depth(x):
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        return Conv(2, 3, padding=0)(x.reshape(n, h // 2, w // 2, 4 * c))
    assert field(space_to_depth) == (6, 2, 0)


def test_local_response_normalisation_across_channels_sees_one_position():
    def body(x):
        window, pads = (1, 1, 1, 5), ((0, 0), (0, 0), (0, 0), (2, 2))
        energy = lax.reduce_window(x * x, 0.0, lax.add, window, (1,) * 4, pads)
        return Conv(2, 3)(x / (2 + 1e-4 * energy) ** 0.75)
    assert field(body) == (3, 1, -1)


def test_what_sees_the_whole_map_is_flagged():
    def body(x):
        x = Conv(2, 3, name="conv")(x)
        y = GlobalAvgPool(name="pool")(x)
        z = Dense(3, name="flat")(x.reshape(x.shape[0], -1))
        return Dense(3, name="head")(jnp.concatenate([y, z], -1))
    assert {name: f.sees_all for name, f in fields(body).items()} == {
        "conv": False, "pool": True, "flat": True, "head": True}


def test_an_adaptive_pool_is_followed_where_its_bins_are_equal_and_flagged_where_not():
    def body(x):
        return AdaptiveAvgPool(6, name="pool")(Conv(2, 3, name="conv")(x))
    assert fields(body, 24)["pool"].size == (6, 6) and not fields(body, 24)["pool"].sees_all
    assert fields(body, 23)["pool"].size == (3, 3) and fields(body, 23)["pool"].sees_all


def test_a_layer_called_twice_has_two_fields():
    def body(x):
        conv = Conv(4, 3, name="conv")
        return conv(conv(x))
    found = cnnjax.receptive_field(Net(body), (1, 32, 32, 4))
    assert [(f.name, f.size) for f in found] == [("conv", (3, 3)), ("conv", (5, 5))]


@pytest.mark.parametrize(("operation", "named"), [
    (lambda x: jnp.sort(x, 1), "'sort' after layer conv has no rule"),
    (lambda x: x[:, ::-1], "'rev' after layer conv flips the map"),
    (lambda x: jnp.cumsum(x, 2), "'cumsum' after layer conv sums along"),
    (lambda x: x[:, ::2, ::2] + nn.Conv(4, (3, 3))(x)[:, :32, :32], "joins maps of strides"),
    (lambda x: jnp.concatenate([x, x], 1), "puts maps beside one another"),
    (lambda x: jnp.einsum("bhwc,bijc->bhij", x, x), "pairs positions"),
    (lambda x: nn.ConvTranspose(4, (2, 2), strides=(2, 2))(x), "puts zeros between the pixels"),
    (lambda x: lax.fori_loop(0, 3, lambda _, x: x * 2, x), "'scan' after layer conv has no rule"),
])
def test_an_operation_without_a_rule_is_an_error_that_names_it_and_not_a_wrong_answer(operation,
                                                                                     named):
    with pytest.raises(UserError, match=named):
        fields(lambda x: Conv(4, 3, name="last")(operation(Conv(4, 3, name="conv")(x))))


@pytest.mark.parametrize(("name", "depth"), [
    ("resnet18", 18), ("resnet50", 50), ("resnet20_cifar", 20), ("plain20_cifar", 20),
    ("lenet5", 5), ("cifar_resnet18", 18)])
def test_the_depth_is_that_of_the_models_name(name, depth):
    size = cnnjax.models.lookup(name).input_size
    assert cnnjax.receptive_field(cnnjax.create_model(name), (1, *size))[-1].depth == depth


def test_gates_are_no_part_of_the_depth_and_branches_count_once():
    def body(x):
        x = Conv(8, 3)(x)
        x = x * Dense(8)(nn.relu(Dense(2)(x.mean((1, 2)))))[:, None, None]
        x = jnp.concatenate([x, Conv(8, 3)(Conv(8, 1)(x)), Conv(8, 1)(x)], -1)
        return Dense(5, name="head")(x.mean((1, 2)))
    assert fields(body)["head"].depth == 4


def test_endpoints_have_fields_that_include_the_shortcut():
    model = cnnjax.create_model("resnet18", 10)
    found = endpoint_fields(model, (1, 64, 64, 3))
    assert list(found) == ["stem", "stage1", "stage2", "stage3", "stage4", "features", "logits"]
    assert [f.size[0] for f in found.values()][:5] == [11, 43, 99, 211, 435]
    assert [f.sees_all for f in found.values()] == [False] * 5 + [True] * 2
    only = endpoint_fields(model, (1, 64, 64, 3), "stage2")
    assert only == {"stage2": found["stage2"]}
    with pytest.raises(UserError, match="Did you mean 'stage4'"):
        endpoint_fields(model, (1, 64, 64, 3), "stage5")


def test_nothing_is_computed():
    model = cnnjax.create_model("resnet18")
    before = len(jax.live_arrays())
    assert cnnjax.receptive_field(model, (1024, 4096, 4096, 3))[-3].size == (435, 435)
    assert len(jax.live_arrays()) <= before


@pytest.mark.parametrize("shape", [(28, 28, 1), (1, 28, 28, 0), (1, 28.5, 28, 1)])
def test_a_wrong_input_shape_is_a_user_error(shape):
    with pytest.raises(UserError, match=r"takes the \(N, H, W, C\)"):
        cnnjax.receptive_field(cnnjax.create_model("lenet5", 10), shape)
