"""The formulas: their documented numbers, and against layers that are built."""

import doctest
import itertools

import jax
import jax.numpy as jnp
import pytest

from cnnjax import trees
from cnnjax.analysis import conv_output_size, conv_params, dense_params, formulas, stack_field
from cnnjax.models.layers import Conv, Dense, MaxPool
from cnnjax.types import UserError


def test_the_documented_numbers_are_what_the_functions_return():
    failed, tried = doctest.testmod(formulas)
    assert failed == 0 and tried == 19


def shapes(layer, *shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    return variables, jax.eval_shape(layer.apply, variables, x)


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), [
    c for c in itertools.product((7, 8, 32), (1, 2, 3, 5), (1, 2, 3), (0, 1)) if c[3] < c[1]])
def test_the_output_size_is_that_of_a_convolution_and_of_a_pool(size, kernel, stride, padding):
    expected = conv_output_size(size, kernel, stride, padding)
    for layer in (Conv(1, kernel, stride, padding), MaxPool(kernel, stride, padding)):
        assert shapes(layer, 1, size, size, 1)[1].shape == (1, expected, expected, 1)


@pytest.mark.parametrize("bias", [False, True])
def test_the_parameters_are_those_of_the_layers(bias):
    for groups in (1, 3, 6):
        layer = Conv(12, (3, 5), groups=groups, use_bias=bias)
        assert trees.count(shapes(layer, 1, 8, 8, 6)[0]) == conv_params((3, 5), 6, 12, bias, groups)
    assert trees.count(shapes(Dense(7), 1, 20)[0]) == dense_params(20, 7)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: conv_output_size(4, 7), "a kernel of 7 does not fit 4 pixels .* pad by 2"),
    (lambda: conv_output_size(4, 3, 0), "stride must be an integer from 1, got 0"),
    (lambda: conv_output_size(4.5, 3), "size must be an integer"),
    (lambda: conv_output_size(4, 3, padding=-1), "padding must be an integer from 0"),
    (lambda: conv_params(3, 6, 4, groups=4), "groups=4 must divide in_channels=6"),
    (lambda: dense_params(0, 4), "inputs must be an integer from 1"),
    (lambda: stack_field([3, 3], [1]), "2 kernels and 1 strides"),
])
def test_what_cannot_be_is_a_user_error(call, message):
    with pytest.raises(UserError, match=message):
        call()
