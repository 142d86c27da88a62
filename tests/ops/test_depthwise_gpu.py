"""Depthwise convolutions on a GPU: computed by Pallas's interpreter, and lowered for CUDA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops import depthwise_gpu, depthwise_kernels, triton, xla
from cnnjax.ops.depthwise_kernels import Tiles
from cnnjax.ops.geometry import ConvGeometry

# map, kernel, stride, padding, channels
CASES = [
    ((4, 5), (2, 3), (2, 1), ((0, 1), (2, 0)), 8),
    ((3, 4), (2, 1), (1, 2), ((0, 0), (0, 0)), 8),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in [
        ((5, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), 16),
        ((5, 6), (3, 3), (2, 2), ((1, 1), (1, 1)), 24),
        ((9, 7), (5, 5), (2, 2), ((2, 2), (2, 2)), 24),
        ((7, 7), (5, 5), (1, 1), ((2, 2), (2, 2)), 24),
        ((10, 11), (3, 3), (2, 2), ((1, 1), (1, 1)), 40),
        ((8, 9), (3, 5), (2, 1), ((0, 2), (1, 0)), 8)]),
]
# A tile of less than a row, in chunks of channels; and one of more, of all channels.
TILES = [Tiles(8, 16, 2, 1), Tiles(0, 128, 1, 1)]


def products(x, kernel, dy, g, tiles):
    tiles = tiles._replace(channels=tiles.channels or g.in_channels)
    return (depthwise_kernels.output(x, kernel, g, tiles, interpret=True),
            depthwise_kernels.input_gradient(dy, kernel, g, tiles, interpret=True))


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("size,window,stride,padding,channels", CASES)
def test_both_products_are_those_of_xla(size, window, stride, padding, channels, tiles):
    g = ConvGeometry(size, window, stride, padding, channels, channels, channels)
    rng = np.random.default_rng(0)
    x, kernel, dy = (rng.standard_normal(shape, np.float32).astype(jnp.bfloat16) for shape in (
        (3, *size, channels), (*window, 1, channels), (3, *g.out, channels)))
    found = jax.jit(functools.partial(products, g=g, tiles=tiles))(x, kernel, dy)
    wide = [a.astype(np.float32) for a in (x, kernel, dy)]
    y, back = jax.vjp(lambda x: xla.conv2d(x, wide[1], g), wide[0])
    for ours, exact in zip(found, (y, *back(wide[2])), strict=True):
        assert ours.dtype == jnp.bfloat16
        # Half a unit in the last place of bfloat16, and the rounding of float32 sums.
        np.testing.assert_allclose(ours.astype(np.float32), exact, rtol=2**-8, atol=1e-5)


def test_an_empty_batch_has_empty_products():
    g = ConvGeometry((4, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), 8, 8, 8)
    empty, kernel = jnp.zeros((0, 4, 4, 8)), jnp.ones((3, 3, 1, 8))
    y, dx = products(empty, kernel, empty, g, TILES[0])
    assert y.shape == dx.shape == empty.shape


@pytest.mark.parametrize("pixels,channels,window,stride", [
    (112, 96, 3, 2), pytest.param(28, 240, 5, 1, marks=pytest.mark.slow),
    pytest.param(14, 672, 5, 2, marks=pytest.mark.slow)])
def test_layers_of_efficientnet_are_lowered_for_cuda(pixels, channels, window, stride,
                                                     lowered_for_cuda):
    g = ConvGeometry((pixels,) * 2, (window,) * 2, (stride,) * 2, ((window // 2,) * 2,) * 2,
                     channels, channels, channels)
    x, kernel, dy = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (
        (256, *g.size, channels), (window, window, 1, channels), (256, *g.out, channels)))

    def step(x, kernel, dy):
        return depthwise_gpu.output(x, kernel, g), depthwise_gpu.input_gradient(dy, kernel, g)

    text = lowered_for_cuda(step, x, kernel, dy)
    for name in ("depthwise_output", "depthwise_input_gradient"):
        assert text.count(name) >= 1


class Device:
    def __init__(self, capability):
        self.compute_capability = capability


@pytest.mark.parametrize("devices,expected", [
    ([Device("9.0")], True), ([Device("12.0")], True), ([Device("9.0")] * 2, False),
    ([Device("7.5")], False), ([Device("gfx90a")], False)])
def test_kernels_are_for_one_device_that_triton_knows(devices, expected, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(triton, "runs_here", triton.runs_here.__wrapped__)
    assert depthwise_gpu.applies(ConvGeometry(
        (4, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), 8, 8, 8)) == expected


def test_a_map_in_float32_is_left_to_xla():
    g = ConvGeometry((4, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), 8, 8, 8)
    text = jax.jit(lambda x, kernel: depthwise_gpu.output(x, kernel, g)).lower(
        jnp.zeros((1, 4, 4, 8)), jnp.zeros((3, 3, 1, 8))).as_text()
    assert "stablehlo.convolution" in text and "case" not in text
