"""The effective receptive field against sums that are known."""

import flax.linen as nn
import jax
import matplotlib.image
import numpy as np
import pytest

import cnnjax
from cnnjax.analysis.effective_field import EffectiveField, effective_field, plot_effective_field
from cnnjax.analysis.receptive_field import LayerField
from cnnjax.models.layers import Conv, Endpoints
from cnnjax.types import UserError


class Stack(nn.Module):
    """Convolutions of 3x3 with all weights 1 / 9, one channel, nothing between."""

    depth: int
    stride: int = 1
    endpoints = ("map", "features")

    @nn.compact
    def __call__(self, x, train=False, capture=()):
        end = Endpoints(self.endpoints, capture)
        for _ in range(self.depth):
            x = Conv(1, 3, self.stride, kernel_init=nn.initializers.constant(1 / 9))(x)
        return end.result(end("features", end("map", x).mean((1, 2))))


def field_of(depth, size=64, stride=1):
    model = Stack(depth, stride)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, size, size, 1), np.float32))
    return effective_field(model, variables, (2, size, size, 1), "map", batches=1)


def test_a_stack_of_box_filters_gives_the_box_convolved_with_itself():
    line = np.ones(1)
    for _ in range(4):
        line = np.convolve(line, np.ones(3) / 3)
    found = field_of(4, 33)
    top, left, tall, wide = found.box
    assert (tall, wide) == (9, 9)
    expected = np.zeros((33, 33))
    expected[top:top + 9, left:left + 9] = np.outer(line, line) / line.max() ** 2
    np.testing.assert_allclose(found.sensitivity, expected, atol=1e-6)


def test_the_program_is_that_of_any_weights(cache):
    model, kept = Stack(1), []
    for value in (1.0, 2.0):
        effective_field(model, {"params": {"Conv_0": {"kernel": np.full((3, 3, 1, 1), value)}}},
                        (1, 8, 8, 1), "map", batches=1)
        kept.append({entry.name for entry in (cache / "jax").glob("*-cache")})
    assert kept[0] and kept[1] == kept[0]


def test_outside_of_the_theoretical_field_nothing_moves_the_position():
    found = field_of(3, 64, stride=2)
    top, left, tall, wide = found.box
    rows, cols = np.nonzero(found.sensitivity)
    assert (rows.min(), rows.max()) == (top, top + tall - 1)
    assert (cols.min(), cols.max()) == (left, left + wide - 1)


def test_the_effective_field_grows_as_the_root_of_the_depth_as_luo_et_al_show():
    sizes = [field_of(depth, 96).size for depth in (5, 20)]
    assert 1.8 < sizes[1] / sizes[0] < 2.2
    assert sizes[1] < 20  # Of 41 in theory.


@pytest.mark.slow
def test_a_model_of_the_table_has_an_effective_field_within_its_theoretical_one():
    model = cnnjax.create_model("resnet20_cifar", 10, stage_sizes=(1, 1, 1))
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    found = effective_field(model, variables, (4, 32, 32, 3), "stage1", batches=2)
    assert found.field.size == (7, 7) and found.position == (16, 16)
    assert np.count_nonzero(found.sensitivity) == 49
    assert found.sensitivity.max() == 1 and 0 < found.size <= 7
    again = effective_field(model, variables, (4, 32, 32, 3), "stage1", batches=2)
    np.testing.assert_array_equal(found.sensitivity, again.sensitivity)


def test_what_is_no_map_is_a_user_error():
    model = cnnjax.create_model("simple_cnn", 10, widths=(4,))
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    with pytest.raises(UserError, match="'features' is no map"):
        effective_field(model, variables, (1, 16, 16, 3), "features")
    with pytest.raises(UserError, match="Did you mean 'stage1'"):
        effective_field(model, variables, (1, 16, 16, 3), "stage")
    zeros = jax.tree.map(np.zeros_like, variables)
    with pytest.raises(UserError, match="does not depend on the image"):
        effective_field(model, zeros, (1, 16, 16, 3), "conv1")


def test_the_picture_shows_the_map_and_the_frame(tmp_path):
    sensitivity = np.zeros((40, 60), np.float32)
    sensitivity[15:25, 25:35] = 1
    found = EffectiveField(sensitivity, (2, 3), LayerField("stage1", (30, 40), (10, 10), (-10, -5)))
    assert found.box == (10, 25, 30, 40) and found.size == 10
    plot_effective_field(found, tmp_path / "field.png", "a title")
    picture = matplotlib.image.imread(tmp_path / "field.png")[..., :3]
    cyan = (np.abs(picture - [0, 1, 1]) < 0.1).all(-1)
    assert cyan.sum() > 100


def test_channels_that_move_in_opposite_directions_do_not_cancel():
    def opposite(key, shape, dtype=None):
        return np.broadcast_to(np.float32([1, -1]), shape)

    class Opposites(nn.Module):
        endpoints = ("map",)

        @nn.compact
        def __call__(self, x, train=False, capture=()):
            end = Endpoints(self.endpoints, capture)
            return end.result(end("map", Conv(2, 3, kernel_init=opposite)(x)))

    model = Opposites()
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 9, 9, 1), np.float32))
    found = effective_field(model, variables, (4, 9, 9, 1), "map")
    assert np.count_nonzero(found.sensitivity) == 9 and found.sensitivity.max() == 1
