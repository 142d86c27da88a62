"""The summary against published tables."""

import flax.linen as nn
import jax.numpy as jnp
import pytest

import cnnjax
from cnnjax.models.layers import Conv, Dense
from cnnjax.types import UserError

LENET5 = """\
layer  type      output    kernel  stride  parameters  multiply-adds  field  step  start
conv1  conv      28x28x6   5x5     1x1            156        117,600  5x5    1x1   -2,-2
pool1  avg_pool  14x14x6   2x2     2x2              0              0  6x6    2x2   -2,-2
conv2  conv      10x10x16  5x5     1x1          1,516        150,000  14x14  2x2   -2,-2
pool2  avg_pool  5x5x16    2x2     2x2              0              0  16x16  4x4   -2,-2
fc1    dense     120                           48,120         48,000  all
fc2    dense     84                            10,164         10,080  all
head   dense     10                               850            840  all
total                                          60,806        326,520"""
# Layer, output, kernel, parameters: the table of LeNet-5 that textbooks give, with the sparse
# connections of the paper's Table I.
TEXTBOOK = (("conv1", (28, 28, 6), (5, 5), 156), ("pool1", (14, 14, 6), (2, 2), 0),
            ("conv2", (10, 10, 16), (5, 5), 1516), ("pool2", (5, 5, 16), (2, 2), 0),
            ("fc1", (120,), None, 48_120), ("fc2", (84,), None, 10_164), ("head", (10,), None, 850))


def summary(name, num_classes, shape, **overrides):
    return cnnjax.summarize(cnnjax.create_model(name, num_classes, **overrides), shape)


def test_the_table_of_lenet5_is_the_papers():
    assert summary("lenet5", 10, (1, 28, 28, 1)).format_table() == LENET5
    # The paper's images of 32 px have the margin that 28 px are padded with.
    assert summary("lenet5", 10, (1, 32, 32, 1)).format_table() == LENET5.replace("-2,-2", "0,0")


@pytest.mark.parametrize("line", range(7))
def test_each_row_of_lenet5_is_the_textbooks_to_the_digit(line):
    row = summary("lenet5", 10, (1, 28, 28, 1)).rows[line]
    assert (row.name, row.output_shape[1:], row.kernel, row.params) == TEXTBOOK[line]


def test_lenet5_has_60806_parameters_and_61706_with_full_connections():
    assert summary("lenet5", 10, (1, 28, 28, 1)).params == sum(row[3] for row in TEXTBOOK) == 60_806
    full = summary("lenet5_full", 10, (1, 28, 28, 1))
    assert (full.params, full.rows[2].params) == (61_706, 2_416)


# Parameters and 1e9 multiply-adds of an image: torchvision 0.28 and the torch twins of the tests.
@pytest.mark.parametrize("name,num_classes,size,channels,params,gmacs", [
    ("lenet5_full", 10, 28, 1, 61_706, 0.000417),
    ("cifar_resnet18", 10, 32, 3, 11_173_962, 0.555423),
    ("resnet18", 1000, 224, 3, 11_689_512, 1.814073),
    ("resnet34", 1000, 224, 3, 21_797_672, 3.663761),
    ("resnet50", 1000, 224, 3, 25_557_032, 4.089184),
    pytest.param("resnet101", 1000, 224, 3, 44_549_160, 7.801405, marks=pytest.mark.slow),
    pytest.param("resnet152", 1000, 224, 3, 60_192_808, 11.513627, marks=pytest.mark.slow),
])
def test_parameters_and_multiply_adds_are_the_published(name, num_classes, size, channels, params,
                                                        gmacs):
    found = summary(name, num_classes, (1, size, size, channels))
    assert found.params == params == sum(row.params for row in found.rows)
    assert round(found.macs / 1e9, 6) == gmacs


def test_the_batch_changes_output_shapes_alone():
    one, five = (summary("simple_cnn", 10, (n, 32, 32, 3)) for n in (1, 5))
    assert (one.params, one.macs) == (five.params, five.macs) == (94_986, 10_323_200)
    assert one.format_table() == five.format_table()
    assert five.rows[0].output_shape == (5, 32, 32, 32)


def test_rows_name_their_layers_as_the_parameters_do():
    found = summary("resnet50", 1000, (1, 64, 64, 3))
    rows = {row.name: row for row in found.rows}
    assert len(rows) == len(found.rows)
    row = rows["stage2_block1/conv2"]
    assert (row.kind, row.kernel, row.stride) == ("conv", (3, 3), (2, 2))
    assert (row.output_shape, row.params) == ((1, 8, 8, 128), 9 * 128 * 128)
    assert rows["stem_pool"].kernel == (3, 3)
    assert rows["pool"].kernel is None


def test_flax_layers_and_parameters_of_ones_own_are_counted_once():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            conv = nn.Conv(3, (3, 3), strides=2, name="conv")
            x = conv(x)
            x = conv(x)
            x = x * self.param("gain", nn.initializers.ones, (3,))
            return nn.Dense(4, name="dense")(x.mean((1, 2)))

    found = cnnjax.summarize(Own(), (2, 8, 8, 3))
    assert [(row.name, row.kind, row.params, row.macs) for row in found.rows] == [
        ("conv", "conv", 84, 16 * 81), ("conv", "conv", 0, 4 * 81), ("dense", "dense", 16, 12),
        ("", "Own", 3, 0)]
    assert found.params == 103


@pytest.mark.parametrize("fields", [True, False])
def test_what_is_not_counted_is_said(fields):
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return Conv(3, 3, name="conv")(x), None

    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = Conv(3, 3, name="stem")(x)
            scan = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True},
                           length=4)
            x, _ = scan(name="blocks")(x, None)
            towers = nn.vmap(nn.Conv, in_axes=None, out_axes=-1, axis_size=2,
                             variable_axes={"params": 0}, split_rngs={"params": True})
            x = towers(3, (3, 3), name="towers")(x).sum(-1)
            return nn.ConvTranspose(3, (2, 2), name="up")(x)

    found = cnnjax.summarize(Own(), (1, 8, 8, 3), fields)
    assert found.note.endswith("without what they do: blocks/conv, towers, up")
    assert found.params == 5 * 81 + 2 * 84 + 39
    assert summary("lenet5", 10, (1, 28, 28, 1)).note == ""


def test_grouped_convolutions_and_squeeze_excite_gates_count_their_own_multiply_adds():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = Conv(8, 3, groups=4, name="grouped")(x)
            x = Conv(8, 3, 2, groups=8, name="depthwise")(x)
            gate = Dense(8, name="gate")(Dense(2, name="squeeze")(x.mean((1, 2))))
            return x * gate[:, None, None]

    found = cnnjax.summarize(Own(), (3, 8, 8, 8))
    assert [(row.name, row.macs) for row in found.rows] == [
        ("grouped", 64 * 9 * 2 * 8), ("depthwise", 16 * 9 * 8), ("squeeze", 16), ("gate", 16)]


def test_rows_have_receptive_fields_and_say_where_they_are_unknown():
    class Sorted(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return Conv(4, 3, name="conv2")(jnp.sort(Conv(4, 3, name="conv1")(x), 1))

    rows = {row.name: row for row in summary("resnet50", 10, (1, 64, 64, 3)).rows}
    assert rows["stage4_block3/conv3"].field.size == rows["stage4_block3/norm3"].field.size
    assert rows["stage4_block3/conv3"].field.size == (427, 427)
    assert rows["head"].field.sees_all
    found = cnnjax.summarize(Sorted(), (1, 16, 16, 3))
    assert [row.field for row in found.rows] == [None, None] and found.params == 252
    assert "'sort' after layer conv1" in found.format_table()


@pytest.mark.parametrize("shape", [(28, 28, 1), (1, 28, 28, 0), (1, 28.5, 28, 1)])
def test_a_wrong_input_shape_is_a_user_error(shape):
    with pytest.raises(UserError, match=r"summarize takes the \(N, H, W, C\)"):
        summary("lenet5", 10, shape)


def test_shapes_alone_are_traced():
    # A batch of this size would need terabytes.
    assert summary("resnet18", 1000, (1024, 1024, 1024, 3)).macs > 37e9


def test_without_fields_the_rows_are_the_same_and_auxiliary_heads_have_none():
    module = cnnjax.create_model("googlenet", num_classes=10, aux_logits=True)
    whole = cnnjax.summarize(module, (1, 64, 64, 3))
    quick = cnnjax.summarize(module, (1, 64, 64, 3), fields=False)
    assert (quick.params, quick.macs) == (whole.params, whole.macs)
    assert [row.name for row in quick.rows] == [row.name for row in whole.rows]
