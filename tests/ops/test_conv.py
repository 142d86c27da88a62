"""Every formulation of a convolution against lax.conv and its derivatives, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnjax import ops
from cnnjax.ops import (
    bilinear,
    columns,
    conv,
    patches,
    pointwise,
    product,
    rows,
    taps,
    winograd,
    winograd_matrices,
)
from cnnjax.ops.geometry import ConvGeometry
from cnnjax.types import UserError


def definition(x, kernel, stride, padding, groups):
    stride = (stride, stride) if isinstance(stride, int) else stride
    padding = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    return lax.conv_general_dilated(
        x, kernel, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups)


def arrays(size, window, channels, features, groups, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, *size, channels)).astype(dtype)
    kernel = rng.standard_normal((*window, channels // groups, features)).astype(dtype)
    return x, kernel


def value_and_gradients(conv, x, kernel):
    """The output, and the derivatives of a smooth function of it by both arguments."""
    def loss(x, kernel):
        y = conv(x, kernel)
        return jnp.sum(jnp.sin(y)), y
    gradients, y = jax.grad(loss, (0, 1), has_aux=True)(x, kernel)
    return y, *gradients


@pytest.fixture
def patch(monkeypatch):
    """monkeypatch, for what is read while a convolution is traced: traces are kept by geometry."""
    conv._compute.clear_cache()
    yield monkeypatch
    conv._compute.clear_cache()


def check_value_and_gradients(x, kernel, stride, padding, groups=1):
    """Also returns the number of loops in the program."""
    @jax.jit
    def both(x, kernel):
        return [value_and_gradients(conv, x, kernel) for conv in (
            lambda x, k: ops.conv2d(x, k, stride, padding, groups),
            lambda x, k: definition(x, k, stride, padding, groups))]

    lowered = both.lower(x, kernel)
    for ours, theirs in zip(*lowered.compile()(x, kernel), strict=True):
        assert ours.dtype == theirs.dtype == jnp.float64
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())
    return lowered.as_text().count("stablehlo.while")


SAME, VALID = "SAME", "VALID"
UNEVEN = ((0, 2), (1, 0))
CASES = [
    # formulation, map, kernel, stride, padding, in channels, out channels, groups
    ("pointwise", (7, 5), (1, 1), 1, SAME, 5, 9, 1),
    ("pointwise", (7, 6), (1, 1), 2, 0, 16, 3, 1),
    ("pointwise", (5, 8), (1, 1), (2, 3), VALID, 4, 4, 1),
    ("pointwise", (1, 1), (1, 1), 2, 0, 16, 8, 1),
    ("tiny_maps", (1, 1), (3, 3), 1, 1, 16, 8, 1),
    ("tiny_maps", (2, 2), (3, 3), 1, SAME, 17, 8, 1),
    ("tiny_maps", (2, 2), (3, 3), 2, 1, 16, 8, 1),
    ("tiny_maps", (1, 4), (3, 3), 1, 1, 16, 8, 1),
    ("tiny_maps", (4, 3), (3, 3), 2, 1, 16, 8, 1),
    ("tiny_maps", (3, 3), (5, 5), 2, 2, 16, 8, 1),
    ("tiny_maps", (5, 5), (5, 5), 1, VALID, 16, 8, 1),
    ("tiny_maps", (3, 2), (3, 2), (2, 1), UNEVEN, 16, 8, 1),
    ("tiny_maps", (1, 1), (1, 1), 2, 1, 16, 8, 1),
    ("tiny_maps", (3, 3), (5, 5), 1, 2, 17, 9, 1),
    ("tiny_maps", (4, 4), (5, 5), 1, SAME, 32, 33, 1),
    ("tiny_maps", (2, 4), (3, 3), 1, 1, 16, 8, 1),
    ("tiny_maps", (1, 9), (5, 4), 1, ((2, 2), (2, 1)), 16, 7, 1),
    ("rows", (9, 8), (5, 5), 1, 2, 1, 6, 1),
    ("rows", (14, 13), (5, 5), 1, VALID, 6, 16, 1),
    ("rows", (9, 5), (3, 2), (2, 1), UNEVEN, 6, 8, 1),
    ("rows", (8, 11), (3, 3), (1, 2), SAME, 2, 3, 1),
    ("rows", (6, 24), (3, 3), (1, 2), SAME, 2, 8, 1),
    ("rows", (2, 2), (3, 3), 1, SAME, 6, 8, 1),
    ("depthwise", (9, 7), (3, 3), 1, SAME, 6, 6, 6),
    ("depthwise", (15, 17), (3, 3), 2, 1, 5, 5, 5),
    ("depthwise", (16, 9), (5, 5), 2, SAME, 4, 4, 4),
    ("depthwise", (8, 7), (7, 7), 1, 3, 3, 3, 3),
    ("depthwise", (9, 8), (3, 2), (2, 1), UNEVEN, 4, 4, 4),
    ("depthwise", (8, 7), (3, 2), 1, UNEVEN, 4, 4, 4),
    ("depthwise", (8, 7), (3, 4), 1, VALID, 4, 4, 4),
    ("depthwise", (9, 10), (2, 3), (3, 4), VALID, 4, 4, 4),
    ("depthwise", (2, 2), (5, 5), 1, 2, 4, 4, 4),
    ("depthwise", (2, 1), (5, 5), 2, 2, 4, 4, 4),
    ("depthwise", (1, 1), (7, 7), 1, 3, 4, 4, 4),
    ("depthwise", (2, 3), (3, 3), 2, 4, 4, 4, 4),
    ("depthwise", (3, 3), (1, 1), 2, 1, 4, 4, 4),
    ("winograd", (9, 7), (3, 3), 1, 1, 48, 49, 1),
    ("winograd", (4, 5), (3, 3), 1, UNEVEN, 49, 48, 1),
    ("winograd", (8, 6), (3, 3), 1, VALID, 48, 48, 1),
    ("winograd", (5, 4), (3, 3), 1, 3, 48, 48, 1),
    ("winograd", (9, 8), (5, 5), 1, 2, 32, 33, 1),
    ("winograd", (7, 9), (5, 5), 1, UNEVEN, 32, 32, 1),
    ("winograd", (8, 9), (5, 5), 1, VALID, 33, 32, 1),
    ("taps", (28, 29), (3, 3), 2, 1, 17, 5, 1),
    ("taps", (16, 31), (5, 3), (1, 2), UNEVEN, 16, 3, 1),
    ("taps", (42, 56), (2, 2), (3, 4), VALID, 16, 3, 1),
    ("taps", (9, 7), (3, 3), 1, 1, 16, 8, 1),
    ("taps", (28, 29), (3, 3), 2, 1, 17, 18, 1),
    ("taps", (16, 31), (5, 3), (1, 2), UNEVEN, 16, 17, 1),
    ("taps", (42, 56), (2, 2), (3, 4), VALID, 16, 16, 1),
    ("taps", (8, 9), (3, 3), 2, 1, 256, 257, 1),
    ("space_to_depth", (29, 30), (7, 7), 2, 3, 3, 32, 1),
    ("space_to_depth", (61, 63), (11, 11), 4, 2, 3, 33, 1),
    ("space_to_depth", (31, 33), (7, 8), 2, UNEVEN, 4, 32, 1),
    ("space_to_depth", (57, 55), (12, 11), 4, SAME, 1, 32, 1),
    ("patches", (29, 30), (7, 7), 2, 3, 3, 8, 1),
    ("patches", (61, 63), (11, 11), 4, 2, 3, 17, 1),
    ("patches", (15, 17), (3, 3), 1, SAME, 4, 9, 1),
    ("patches", (32, 45), (5, 2), (2, 3), UNEVEN, 1, 7, 1),
    ("patches", (31, 30), (3, 1), (1, 2), VALID, 2, 17, 1),
    ("patches", (44, 17), (3, 4), (3, 1), 4, 3, 6, 1),
    ("xla", (9, 6), (3, 3), 1, 1, 16, 8, 1),
    ("xla", (27, 12), (3, 3), 2, 1, 16, 8, 1),
    ("xla", (9, 7), (3, 2), (2, 1), UNEVEN, 6, 8, 1),
    ("xla", (2, 33), (3, 3), 1, SAME, 3, 8, 1),
    ("xla", (5, 4), (1, 1), 1, 1, 8, 12, 1),
    ("blocks", (7, 6), (3, 3), 2, SAME, 16, 32, 16),
    ("blocks", (5, 6), (3, 3), 1, UNEVEN, 96, 48, 12),
    ("blocks", (4, 3), (3, 3), 1, 1, 80, 80, 2),
    ("blocks", (4, 4), (1, 1), 1, 0, 8, 12, 4),
    ("rows", (5, 4), (1, 1), 1, 1, 2, 3, 1),
    ("rows", (7, 6), (3, 3), 2, SAME, 1, 1, 1),
]


@pytest.mark.parametrize("name,size,window,stride,padding,channels,features,groups", CASES)
def test_agrees_with_lax_conv_and_its_derivatives(name, size, window, stride, padding, channels,
                                                  features, groups):
    with jax.enable_x64(True):
        x, kernel = arrays(size, window, channels, features, groups)
        with ops.using("fast"):
            assert ops.formulation(x, kernel, stride, padding, groups) == name
            check_value_and_gradients(x, kernel, stride, padding, groups)


# Of a batch of 3: in one part, in parts of 1, and in parts of 2 with an image of zeros.
@pytest.mark.parametrize("size,window,padding,pixels", [
    ((9, 7), (3, 3), 1, 10 ** 6), ((4, 10), (3, 3), SAME, 1), ((11, 8), (3, 3), UNEVEN, 200),
    ((9, 6), (5, 5), 2, 1), ((9, 6), (5, 5), 2, 10 ** 6)])
@pytest.mark.parametrize("since_0_11", [False, True])
def test_winograd_with_tiles_of_6_pixels_and_in_parts_of_the_batch(size, window, padding, pixels,
                                                                   since_0_11, patch):
    patch.setattr(winograd, "SINCE_0_11", since_0_11)
    patch.setattr(winograd, "MIN_TILES", 1)
    patch.setattr(winograd, "PIXELS", pixels)
    with jax.enable_x64(True), ops.using("fast"):
        x, kernel = arrays(size, window, 48, 50, 1)
        assert ops.formulation(x, kernel, 1, padding) == "winograd"
        loops = check_value_and_gradients(x, kernel, 1, padding)
    # The last step of the output and of the input gradient is always one.
    assert (loops > 2) == (pixels < 3 * size[0] * size[1])


@pytest.mark.parametrize("pixels", [10 ** 6, 1, 60])
def test_taps_in_parts_of_the_batch(pixels, patch):
    patch.setattr(taps, "MIN_SIZE", 5)
    patch.setattr(taps, "PIXELS", pixels)
    with jax.enable_x64(True):
        x, kernel = arrays((9, 11), (3, 3), 16, 8, 1)
        assert ops.formulation(x, kernel, 2, 1) == "taps"
        assert bool(check_value_and_gradients(x, kernel, 2, 1)) == (pixels < 10 ** 6)


@pytest.mark.parametrize("pixels", [10 ** 6, 1, 400])
def test_patches_in_parts_of_the_batch(pixels, patch):
    patch.setattr(patches, "PIXELS", pixels)
    with jax.enable_x64(True):
        x, kernel = arrays((28, 31), (7, 7), 3, 8, 1)
        assert ops.formulation(x, kernel, 2, 3) == "patches"
        assert bool(check_value_and_gradients(x, kernel, 2, 3)) == (pixels < 10 ** 6)


@pytest.mark.parametrize("m,taps", [(2, 3), (4, 3), (3, 4), (2, 5)])
def test_the_matrices_of_winograd_filter_as_the_definition_does(m, taps):
    of_inputs, of_kernels, of_outputs = winograd_matrices.transforms(m, taps)
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal(m + taps - 1), rng.standard_normal(taps)
    np.testing.assert_allclose(of_outputs @ ((of_kernels @ kernel) * (of_inputs @ x)),
                               np.correlate(x, kernel), rtol=0, atol=1e-14)


def test_the_matrices_for_two_outputs_of_three_taps_are_those_of_the_paper():
    """Lavin & Gray, equation 7, up to the signs of a row of one and of the same row of another."""
    of_inputs, of_kernels, of_outputs = winograd_matrices.transforms(2, 3)
    signs = np.array([-1, 1, 1, -1])
    np.testing.assert_array_equal(of_inputs * signs[:, None], [
        [1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    np.testing.assert_array_equal(of_kernels * [[-1], [1], [1], [1]], [
        [1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    np.testing.assert_array_equal(of_outputs * [1, 1, 1, -1], [[1, 1, 1, 0], [0, 1, -1, -1]])


@pytest.mark.parametrize("window,tiles,bound", [(3, 10 ** 6, 2e-6), (3, 1, 6e-6), (5, 1, 6e-6)])
def test_winograd_loses_less_than_a_digit_to_the_definition_in_float32(window, tiles, bound,
                                                                       patch):
    x, kernel = arrays((12, 12), (window, window), 128, 64, 1)
    with jax.enable_x64(True):
        exact = np.asarray(definition(x, kernel, 1, "SAME", 1))
    patch.setattr(winograd, "MIN_TILES", tiles)
    with ops.using("fast"):
        assert ops.formulation(x, kernel) == "winograd"
        y = ops.conv2d(x.astype(np.float32), kernel.astype(np.float32))
    assert np.abs(y - exact).max() < bound * np.abs(exact).max()


# Of a batch of 3: in one part, in parts of 1, and in parts of 2 with an image of zeros.
@pytest.mark.parametrize("pixels", [10 ** 6, 1, 50])
@pytest.mark.parametrize("size,window,stride,padding", [
    ((9, 8), (3, 3), 2, 1), ((8, 7), (3, 3), 2, SAME), ((9, 7), (3, 2), (2, 1), UNEVEN),
    ((9, 10), (2, 3), (3, 4), VALID), ((5, 4), (5, 5), 2, 2), ((6, 7), (5, 5), 1, 2),
    ((7, 8), (1, 1), (2, 3), VALID)])
def test_the_rows_for_rounded_factors_agree_with_lax_conv_and_its_derivatives(
        size, window, stride, padding, pixels, patch):
    patch.setattr(columns, "PIXELS", pixels)
    row = pointwise if window == (1, 1) else columns
    convolution = bilinear.convolution(row.output, row.input_gradient, row.weight_gradient)
    with jax.enable_x64(True):
        x, kernel = arrays(size, window, 16, 18, 1)
        g = conv._geometry(x, kernel, stride, padding, 1)
        assert row.applies(g)
        ours, theirs = jax.jit(lambda: [value_and_gradients(f, x, kernel) for f in (
            lambda x, k: convolution(x, k, g), lambda x, k: definition(x, k, stride, padding, 1))]
            )()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


@pytest.mark.parametrize("since_0_11", [False, True])
@pytest.mark.parametrize("rows,inputs,outputs", [(48, 5, 7), (48, 7, 5), (3, 4, 4)])
def test_products_of_columns_are_sums_in_float32(rows, inputs, outputs, since_0_11, monkeypatch):
    monkeypatch.setattr(product, "SINCE_0_11", since_0_11)
    monkeypatch.setattr(product, "MIN_PART", 5)  # Of 48 rows eight parts.
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.standard_normal((rows, inputs)), jnp.bfloat16)
    b = jnp.asarray(rng.standard_normal((rows, outputs)), jnp.bfloat16)
    found = jax.jit(product.of_columns)(a, b)
    assert found.dtype == jnp.float32
    exact = np.asarray(a, np.float64).T @ np.asarray(b, np.float64)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("side", "stride", "name"), [
    (1, 1, "tiny_maps"), (2, 1, "tiny_maps"), (3, 2, "tiny_maps"), (3, 1, "columns")])
def test_products_leave_windows_that_see_mostly_padding_to_tiny_maps(side, stride, name):
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32)
                 for shape in ((512, side, side, 32), (5, 5, 32, 32)))
    with ops.products("bfloat16"), ops.training():
        assert ops.formulation(x, kernel, stride, 2) == name


@pytest.mark.parametrize("name,size,window,stride", [
    ("pointwise", (13, 14), (1, 1), 1), ("columns", (26, 27), (3, 3), 2),
    ("columns", (26, 27), (5, 5), 1)])
def test_under_products_training_alone_rounds_the_factors_and_nothing_else(name, size, window,
                                                                           stride):
    x, kernel = (a.astype(np.float32) for a in arrays(size, window, 64, 32, 1))
    dy = np.random.default_rng(1).standard_normal(
        definition(x, kernel, stride, "SAME", 1).shape).astype(np.float32)

    def products(conv, x, kernel, dy):
        y, back = jax.vjp(conv, x, kernel)
        return y, *back(dy)

    @jax.jit
    def both(x, kernel, dy):
        found = products(lambda x, k: ops.conv2d(x, k, stride), x, kernel, dy)
        with ops.training():
            return found, products(lambda x, k: ops.conv2d(x, k, stride), x, kernel, dy)

    with ops.products("bfloat16"):
        outside, rounded = both(x, kernel, dy)
        assert ops.formulation(x, kernel, stride) == ("taps" if name == "columns" else name)
        with ops.training():
            assert ops.formulation(x, kernel, stride) == name
            assert ops.formulation(x[:1, :4], kernel, stride) != "columns"
    plain = functools.partial(definition, stride=stride, padding="SAME", groups=1)
    with jax.enable_x64(True):
        exact = products(plain, *(a.astype(np.float64) for a in (x, kernel, dy)))
        of_rounded = products(plain, *(np.asarray(jnp.asarray(a, jnp.bfloat16), np.float64)
                                       for a in (x, kernel, dy)))
    for a, b, unrounded, wanted in zip(outside, rounded, exact, of_rounded, strict=True):
        scale = float(np.abs(unrounded).max())
        np.testing.assert_allclose(a, unrounded, rtol=0, atol=1e-5 * scale)
        np.testing.assert_allclose(b, wanted, rtol=0, atol=1e-5 * scale)
        assert np.abs(np.asarray(b) - np.asarray(unrounded)).max() > 1e-4 * scale


@pytest.mark.parametrize("tiles,error", [(10 ** 6, (0.003, 0.005)), (1, (0.009, 0.013))])
def test_under_products_winograd_rounds_what_it_has_transformed_but_no_kernels_gradient(
        tiles, error, patch):
    patch.setattr(winograd, "MIN_TILES", tiles)
    x, kernel = (a.astype(np.float32) for a in arrays((16, 15), (3, 3), 64, 32, 1))
    dy = np.random.default_rng(1).standard_normal((*x.shape[:3], 32)).astype(np.float32)
    plain = functools.partial(definition, stride=1, padding="SAME", groups=1)

    def products(convolution, *arrays):
        y, back = jax.vjp(convolution, *arrays[:2])
        return y, *back(arrays[2])

    with ops.products("bfloat16"), ops.training():
        assert ops.formulation(x, kernel) == "winograd"
        y, dx, dkernel = products(ops.conv2d, x, kernel, dy)
    with jax.enable_x64(True):
        exact = [np.asarray(a) for a in products(
            plain, *(a.astype(np.float64) for a in (x, kernel, dy)))]
    least, most = error
    for found, wanted in zip((y, dx), exact, strict=False):
        assert found.dtype == jnp.float32
        assert least < np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < most
    np.testing.assert_allclose(dkernel, exact[2], rtol=0, atol=1e-5 * np.abs(exact[2]).max())


# Of each formulation the first.
OF_EACH = [*{c[0]: c for c in reversed(CASES)}.values()]


@pytest.mark.parametrize("name,size,window,stride,padding,channels,features,groups", OF_EACH)
@pytest.mark.parametrize("products", ["float32", "bfloat16"])
def test_a_step_on_a_batch_of_any_size_is_exported(
        name, size, window, stride, padding, channels, features, groups, products):
    kernel = jax.ShapeDtypeStruct((*window, channels // groups, features), jnp.float32)

    def gradients(x, kernel):
        def loss(x, kernel):
            return jnp.sum(jnp.square(ops.conv2d(x, kernel, stride, padding, groups)))
        return jax.grad(loss, (0, 1))(x, kernel)

    [batch] = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, *size, channels), jnp.float32)
    with ops.using("fast"), ops.products(products):
        assert ops.formulation(x, kernel, stride, padding, groups) == name
        exported = jax.export.export(jax.jit(gradients))(x, kernel)
    assert [a.shape for a in exported.out_avals] == [x.shape, kernel.shape]


def test_winograd_of_a_batch_of_any_size_is_that_of_its_images():
    x, kernel = (jnp.float32(a) for a in arrays((9, 7), (3, 3), 32, 33, 1))
    [batch] = jax.export.symbolic_shape("batch")
    with ops.using("fast"):
        assert ops.formulation(x, kernel) == "winograd"
        exported = jax.export.export(jax.jit(ops.conv2d))(
            jax.ShapeDtypeStruct((batch, *x.shape[1:]), jnp.float32), kernel)
    np.testing.assert_allclose(exported.call(x, kernel), definition(x, kernel, 1, "SAME", 1),
                               rtol=1e-4, atol=1e-4)


def test_products_are_of_float32_or_bfloat16():
    with pytest.raises(UserError, match="not of 'float16'"):
        ops.set_products("float16")
    with pytest.raises(UserError, match="not of 'bf16'"):
        ops.products("bf16")


# The last of each too in the slow tests: a second derivative compiles for seconds.
FEWER = [*OF_EACH,
         *(pytest.param(*c, marks=pytest.mark.slow) for c in {c[0]: c for c in CASES}.values())]


@pytest.mark.parametrize("name,size,window,stride,padding,channels,features,groups", FEWER)
def test_second_derivatives_agree_with_those_of_lax_conv(name, size, window, stride, padding,
                                                         channels, features, groups):
    with jax.enable_x64(True):
        x, kernel = arrays(size, window, channels, features, groups)

        def curvature(conv):
            def slope(x, kernel):
                dx, dkernel = jax.grad(lambda *a: jnp.sum(jnp.sin(conv(*a))), (0, 1))(x, kernel)
                return jnp.sum(jnp.sin(dx)) + jnp.sum(jnp.sin(dkernel))
            return jax.grad(slope, (0, 1))(x, kernel)

        with ops.using("fast"):
            ours, theirs = jax.jit(lambda: (
                curvature(lambda x, k: ops.conv2d(x, k, stride, padding, groups)),
                curvature(lambda x, k: definition(x, k, stride, padding, groups))))()
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=3e-12 * np.abs(b).max())


@pytest.mark.parametrize("size,window", [((4, 4), (1, 1)), ((2, 2), (3, 3)), ((6, 6), (3, 3))])
def test_bfloat16_is_summed_in_float32_and_returned_as_bfloat16(size, window):
    x, kernel = arrays(size, window, 512, 4, 1)
    x, kernel = jnp.asarray(abs(x), jnp.bfloat16), jnp.asarray(abs(kernel), jnp.bfloat16)
    y = jax.jit(ops.conv2d)(x, kernel)
    assert y.dtype == jnp.bfloat16
    exact = definition(x.astype(jnp.float32), kernel.astype(jnp.float32), 1, "SAME", 1)
    # Half a unit in the last of bfloat16's 8 bits is 2^-9; summed in bfloat16 these would be off
    # by tens of per cent.
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2 ** -8)
    grads = jax.eval_shape(jax.grad(lambda *a: ops.conv2d(*a).astype(jnp.float32).sum(), (0, 1)),
                           x, kernel)
    assert [g.dtype for g in grads] == [jnp.bfloat16, jnp.bfloat16]


@pytest.mark.parametrize("name,channels", [("patches", 3), ("taps", 16)])
def test_parts_of_a_weight_gradient_in_bfloat16_are_summed_in_float32(name, channels):
    x = jnp.ones((96, 64, 64, channels), jnp.bfloat16)  # An image a part.
    kernel = jnp.zeros((1, 2, channels, 16), jnp.bfloat16)
    assert ops.formulation(x, kernel, padding="VALID") == name
    slope = jax.jit(jax.grad(lambda k: ops.conv2d(x, k, padding="VALID").astype(
        jnp.float32).sum()))(kernel)
    np.testing.assert_allclose(slope.astype(jnp.float32), 96 * 64 * 63, rtol=2 ** -8)


def test_a_reduction_of_a_bfloat16_convolution_is_right_on_this_backend():
    """XLA:CPU of jaxlib 0.12 gives NaN for the fused network without `conv._compute`'s barriers."""
    x, kernel = arrays((16, 16), (3, 3), 32, 32, 1, np.float32)

    @jax.jit
    def pooled(x, kernel):
        for _ in range(2):
            x = jax.nn.relu((ops.conv2d(x, kernel) - 0.1) / 17)
        return x.astype(jnp.float32).mean((1, 2))

    exact = pooled(x, kernel)
    low = pooled(jnp.asarray(x, jnp.bfloat16), kernel)
    np.testing.assert_allclose(low, exact, atol=0.02 * np.abs(exact).max())


def test_the_kernel_is_converted_to_the_dtype_of_x():
    x, kernel = arrays((4, 4), (1, 1), 3, 4, 1, np.float32)
    assert ops.conv2d(jnp.asarray(x, jnp.bfloat16), kernel).dtype == jnp.bfloat16


@pytest.mark.parametrize("name,size,window,groups", [
    ("pointwise", (3, 3), (1, 1), 1), ("tiny_maps", (2, 2), (3, 3), 1), ("rows", (6, 6), (1, 3), 1),
    ("depthwise", (5, 4), (3, 3), 48), ("winograd", (4, 5), (3, 3), 1),
    ("taps", (28, 28), (3, 2), 1), ("blocks", (4, 5), (3, 3), 12),
    ("patches", (45, 90), (7, 7), 1)])
def test_vmap_over_images_and_kernels(name, size, window, groups):
    channels = {"rows": 8, "patches": 3}.get(name, 48)
    x, kernel = arrays(size, window, channels, channels, groups, np.float32)
    xs, kernels = np.stack([x, 2 * x]), np.stack([kernel, -kernel])
    stride = 2 if name in ("taps", "patches") else 1
    conv = functools.partial(ops.conv2d, stride=stride, groups=groups)
    with ops.using("fast"):
        assert ops.formulation(x, kernel, stride, groups=groups) == name
        gradient = jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(conv(x, k))), (0, 1)))
        mapped = jax.jit(jax.vmap(gradient))(xs, kernels)
        looped = [gradient(x, k) for x, k in zip(xs, kernels, strict=True)]
    for ours, theirs in zip(mapped, zip(*looped, strict=True), strict=True):
        np.testing.assert_allclose(ours, np.stack(theirs), rtol=1e-4, atol=1e-3)


def test_using_xla_takes_the_plain_convolution_inside_the_context_alone():
    x, kernel = jnp.ones((1, 2, 2, 16)), jnp.ones((3, 3, 16, 4))
    with ops.using("xla"):
        assert ops.formulation(x, kernel) == "xla"
        with ops.using("auto"):
            assert ops.formulation(x, kernel) == "tiny_maps"
    assert ops.formulation(x, kernel) == "tiny_maps"


def test_using_is_part_of_the_key_of_the_jit_cache():
    traced = []

    @jax.jit
    def conv(x, kernel):
        traced.append(ops.formulation(x, kernel))
        return ops.conv2d(x, kernel)

    x, kernel = jnp.ones((1, 2, 2, 16)), jnp.ones((3, 3, 16, 4))
    conv(x, kernel)
    with ops.using("xla"):
        conv(x, kernel)
    conv(x, kernel)
    assert traced == ["tiny_maps", "xla"]


@pytest.mark.parametrize("choice,elsewhere,training", [
    ("auto", "taps", "winograd"), ("exact", "taps", "taps"), ("fast", "winograd", "winograd"),
    ("xla", "xla", "xla")])
def test_only_auto_is_another_in_training(choice, elsewhere, training):
    x, kernel = jnp.ones((1, 8, 8, 48)), jnp.ones((3, 3, 48, 48))
    with ops.using(choice):
        assert ops.formulation(x, kernel) == elsewhere
        with ops.training():
            assert ops.formulation(x, kernel) == training
        assert ops.formulation(x, kernel) == elsewhere


def test_without_a_formulation_the_next_that_applies_is_taken_inside_the_context_alone():
    x, kernel = jnp.ones((1, 2, 2, 48)), jnp.ones((3, 3, 48, 48))
    assert ops.formulation(x, kernel) == "tiny_maps"
    with ops.without("tiny_maps", "winograd"):
        assert ops.formulation(x, kernel) == "xla"
    assert ops.formulation(x, kernel) == "tiny_maps"


@pytest.mark.parametrize("name,call", [
    ("max_pool", lambda x: ops.max_pool(x, 3, 2, 1)), ("avg_pool", lambda x: ops.avg_pool(x, 2)),
    ("dense", lambda x: ops.dense(x, jnp.ones((4, 3)))),
    ("batch_norm", lambda x: ops.batch_norm(x, *jnp.ones((3, 4)), 1e-5))])
def test_without_reaches_what_is_no_convolution(name, call):
    x = jnp.arange(4 * 6 * 6 * 4, dtype=jnp.float32).reshape(4, 6, 6, 4)

    def lowered():
        return jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(jax.tree.leaves(call(x))[0])))
                       ).lower(x).as_text()

    tuned = lowered()
    with ops.without(name):
        plain = lowered()
    with ops.using("xla"):
        assert lowered() == plain != tuned


def test_an_unknown_formulation_is_refused_with_the_names():
    with pytest.raises(UserError, match="winograd"):
        ops.without("winogard")


def test_training_around_the_loss_alone_holds_for_its_backward_pass(patch):
    x, kernel = jnp.ones((1, 8, 8, 48)), jnp.ones((3, 3, 48, 48))
    traced = []
    tiles = winograd._input_tiles
    patch.setattr(winograd, "_input_tiles",
                  lambda *arguments: traced.append(0) or tiles(*arguments))

    def loss(x, kernel):
        with ops.training():
            return jnp.sum(ops.conv2d(x, kernel))

    jax.eval_shape(jax.grad(loss, (0, 1)), x, kernel)
    # The output's, once more by the rule of its derivatives, and those of both gradients.
    assert len(traced) == 4


def test_set_default_holds_until_a_context_says_otherwise():
    x, kernel = jnp.ones((1, 2, 2, 16)), jnp.ones((3, 3, 16, 4))
    ops.set_default("xla")
    try:
        assert ops.formulation(x, kernel) == "xla"
        with ops.using("auto"):
            assert ops.formulation(x, kernel) == "tiny_maps"
    finally:
        ops.set_default("auto")


def test_forward_mode_works_on_the_plain_definition():
    x, kernel = jnp.ones((1, 2, 2, 16)), jnp.ones((3, 3, 16, 4))
    with ops.using("xla"):
        y, tangent = jax.jvp(lambda k: ops.conv2d(x, k), (kernel,), (kernel,))
    np.testing.assert_allclose(y, tangent, rtol=1e-5)


def test_on_an_accelerator_the_convolution_is_left_to_xla(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert ops.formulation(jnp.ones((1, 4, 4, 16)), jnp.ones((1, 1, 16, 4))) == "xla"


@pytest.mark.parametrize("arguments,message", [
    (dict(kernel=(5, 5, 4, 8), padding=0), "a 5x5 kernel does not fit a 3x3 map"),
    (dict(kernel=(3, 3, 3, 8)), "the map has 4 channels"),
    (dict(kernel=(3, 3, 2, 9), groups=2), "divisible by 2"),
    (dict(kernel=(3, 3, 8)), "takes a kernel of"),
    (dict(kernel=(3, 3, 4, 8), padding="SAEM"), "Did you mean 'SAME'"),
    (dict(kernel=(3, 3, 4, 8), padding=((1, 2), (3,))), "is not known"),
    (dict(kernel=(3, 3, 4, 8), padding=1.5), "is not known"),
    (dict(kernel=(3, 3, 4, 8), padding=((0, 0), (0, 0.5))), "is not known"),
    (dict(kernel=(3, 3, 4, 8), stride=0), "stride must be a positive integer"),
    (dict(kernel=(3, 3, 4, 8), shape=(3, 3, 4)), "takes \\(batch, height, width, channels\\)"),
    (dict(kernel=(3, 3, 4, 8), dtype=jnp.uint8), "takes a floating-point array, got uint8"),
])
def test_a_mistake_is_a_user_error_that_says_which(arguments, message):
    arguments = dict(arguments)
    x = jnp.ones(arguments.pop("shape", (2, 3, 3, 4)), arguments.pop("dtype", jnp.float32))
    with pytest.raises(UserError, match=message):
        ops.conv2d(x, jnp.ones(arguments.pop("kernel")), **arguments)


def test_numbers_of_numpy_are_numbers():
    x, kernel = jnp.ones((1, 7, 7, 4)), jnp.ones((3, 3, 4, 2))
    for value in (np.int64(2), np.array([2, 2]), (np.int32(2), 2)):
        np.testing.assert_array_equal(ops.conv2d(x, kernel, value, value),
                                      ops.conv2d(x, kernel, 2, 2))
        np.testing.assert_array_equal(ops.max_pool(x, value), ops.max_pool(x, 2))


@pytest.mark.parametrize("choice", ["auto", "xla"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dense_is_the_product_and_keeps_the_dtype_of_x(choice, dtype):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 3, 5)).astype(np.float32), rng.normal(size=(5, 4))
    loss = jax.value_and_grad(lambda x, k: jnp.sum(ops.dense(x, k).astype(jnp.float32)), (0, 1))
    with ops.using(choice):
        y = ops.dense(jnp.asarray(x, dtype), jnp.asarray(kernel))
        _, (dx, dkernel) = loss(jnp.asarray(x, dtype), jnp.asarray(kernel))
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_allclose(y.astype(np.float32), x @ kernel, rtol=0.03, atol=0.03)
    np.testing.assert_allclose(dkernel, x.sum((0, 1))[:, None] + 0 * kernel, rtol=0.03, atol=0.03)


def test_dense_with_other_inputs_than_its_kernel_is_a_user_error():
    with pytest.raises(UserError, match="takes 5 inputs and there are 4"):
        ops.dense(jnp.ones((2, 4)), jnp.ones((5, 3)))


@pytest.mark.parametrize("cols,features,parts", [
    (28, 6, 4), (10, 16, 2), (12, 8, 2), (12, 2, 1), (13, 64, 13), (4, 3, 1)])
def test_a_row_is_cut_into_as_many_parts_as_leave_each_its_columns(cols, features, parts):
    g = ConvGeometry((4, cols), (1, 1), (1, 1), ((0, 0), (0, 0)), 1, features, 1)
    assert rows._parts(g) == parts


@pytest.mark.parametrize("name,size,window,stride,padding,channels,features,groups", OF_EACH)
def test_no_images_have_no_outputs_and_a_gradient_of_zeros(
        name, size, window, stride, padding, channels, features, groups):
    x, kernel = (jnp.float32(a) for a in arrays(size, window, channels, features, groups))

    def convolved(x, kernel):
        y = ops.conv2d(x, kernel, stride, padding, groups)
        return jnp.sum(y), y

    with ops.using("fast"):
        assert ops.formulation(x[:0], kernel, stride, padding, groups) == name
        (dx, dkernel), y = jax.grad(convolved, (0, 1), has_aux=True)(x[:0], kernel)
    assert len(y) == len(dx) == 0 and dx.shape[1:] == x.shape[1:]
    np.testing.assert_array_equal(dkernel, np.zeros(kernel.shape))


@pytest.mark.parametrize("dtype,groups,name", [
    (jnp.float32, 1, "columns"), (jnp.float32, 2, "blocks"), (jnp.bfloat16, 1, "taps")])
def test_factors_are_rounded_in_plain_convolutions_of_float32_alone(dtype, groups, name):
    x = jax.ShapeDtypeStruct((3, 26, 27, 64), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, 64 // groups, 32), dtype)
    with ops.products("bfloat16"), ops.training():
        assert ops.formulation(x, kernel, 2, 1, groups) == name


def test_winograd_of_bfloat16_computes_in_float32():
    x, kernel = (jnp.asarray(abs(a), jnp.bfloat16) for a in arrays((6, 6), (3, 3), 64, 32, 1))
    exact = definition(x.astype(jnp.float32), kernel.astype(jnp.float32), 1, "SAME", 1)
    with ops.training():
        assert ops.formulation(x, kernel) == "winograd"
        y = jax.jit(ops.conv2d)(x, kernel)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2 ** -8)
