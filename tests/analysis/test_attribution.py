"""Attributions against Captum's with the same weights, and against what they promise."""

import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_case import CLASSES, IMAGES, WIDTHS, variables

import cnnjax
from cnnjax.analysis import attribution, perturbation
from cnnjax.models import lookup
from cnnjax.types import UserError

GOLDEN = np.load(pathlib.Path(__file__).parent / "attribution.npz")
MODEL = cnnjax.create_model("simple_cnn", 5, widths=WIDTHS)


def call(function, *args, classes=CLASSES, **kwargs):
    return function(MODEL, variables(), jnp.asarray(IMAGES), *args, classes=classes, **kwargs)


def check(found, name):
    np.testing.assert_allclose(found, GOLDEN[name], rtol=0, atol=1e-4 * np.abs(GOLDEN[name]).max())


def test_the_twin_is_the_same_model():
    check(MODEL.apply(variables(), IMAGES), "logits")


def test_saliency_equals_captums():
    check(call(attribution.saliency), "saliency")


def test_integrated_gradients_and_their_error_equal_captums():
    found = call(attribution.integrated_gradients, steps=50)
    check(found.values, "integrated")
    logits, blank = (np.asarray(MODEL.apply(variables(), x)) for x in (IMAGES, 0 * IMAGES))
    rise = (logits - blank)[np.arange(3), CLASSES]
    np.testing.assert_allclose(found.completeness_error * np.abs(rise), np.abs(GOLDEN["delta"]),
                               atol=1e-5)


def test_integrated_gradients_add_up_to_the_rise_of_the_logit():
    found = call(attribution.integrated_gradients)
    assert found.completeness_error.shape == (3,) and found.completeness_error.max() < 0.01


def test_guided_backprop_equals_captums():
    check(call(attribution.guided_backprop), "guided")


@pytest.mark.parametrize("endpoint", ["conv2", "conv3"])
def test_grad_cam_equals_captums(endpoint):
    check(call(attribution.grad_cam, endpoint)[..., None], f"grad_cam_{endpoint}")


def test_occlusion_equals_captums():
    found = call(perturbation.occlusion, window=5, stride=3)
    check(np.repeat(found[..., None], 3, -1), "occlusion")


def test_grad_cam_plus_plus_is_the_papers_formula():
    a, g = attribution._map_and_gradient(MODEL, variables(), jnp.asarray(IMAGES), "conv2", CLASSES)
    a, g = np.asarray(a, np.float64), np.asarray(g, np.float64)
    expected = np.zeros(a.shape[:3])
    for n, c in np.ndindex(a.shape[0], a.shape[3]):
        alpha = np.zeros(a.shape[1:3])
        for i, j in np.ndindex(a.shape[1:3]):
            d = g[n, i, j, c]
            if d:
                alpha[i, j] = d**2 / (2 * d**2 + a[n, :, :, c].sum() * d**3)
        expected[n] += (alpha * np.maximum(g[n, :, :, c], 0)).sum() * a[n, :, :, c]
    found = call(attribution.grad_cam_plus_plus, "conv2")
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-3, atol=1e-5)


def test_the_derivative_by_an_endpoint_is_that_of_the_rest_of_the_model():
    # simple_cnn ends with mean, then head: the derivative by its last map is head / positions.
    a, g = attribution._map_and_gradient(MODEL, variables(), jnp.asarray(IMAGES), "stage3", CLASSES)
    head = variables()["params"]["head"]["kernel"]
    np.testing.assert_allclose(g, np.broadcast_to(
        head[:, CLASSES].T[:, None, None] / 16, a.shape), rtol=1e-5)


def test_without_classes_the_models_own_answer_is_asked_about():
    own = attribution.predict_classes(MODEL, variables(), IMAGES)
    np.testing.assert_array_equal(own, GOLDEN["logits"].argmax(-1))
    np.testing.assert_array_equal(call(attribution.saliency, classes=None),
                                  call(attribution.saliency, classes=own))


def test_smooth_grad_without_noise_is_the_gradient_and_with_it_another():
    plain = call(attribution.input_gradient)
    still = call(attribution.smooth_grad, noise=0.0, samples=2)
    np.testing.assert_allclose(still, plain, atol=1e-6)
    noisy, again, other = (call(attribution.smooth_grad, samples=4, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(noisy, again)
    assert np.abs(noisy - plain).max() > 1e-4 and np.abs(noisy - other).max() > 1e-4


@pytest.mark.parametrize(("activation", "slope_at_7"), [(nn.relu, 1.0), (nn.relu6, 0.0)])
def test_guided_rectifiers_pass_what_is_positive_on_both_sides(activation, slope_at_7):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return jnp.stack([activation(x), -activation(x)], -1).reshape(x.shape[0], 2)

    x = jnp.asarray([-1.0, 2.0, 7.0]).reshape(3, 1, 1, 1)
    for index, expected in ((0, [0, 1, slope_at_7]), (1, [0, 0, 0])):
        found = attribution.guided_backprop(Net(), {}, x, index)
        np.testing.assert_array_equal(found.ravel(), expected)


FAMILIES = {lookup(name).module: name for name in reversed(cnnjax.list_models())}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name in ("simple_cnn", "resnet18", "mobilenet_v2")
                 else pytest.mark.slow) for name in sorted(FAMILIES.values())])
def test_one_model_of_every_family_can_be_attributed(name):
    model, size = cnnjax.create_model(name, 10), lookup(name).input_size
    x = jax.ShapeDtypeStruct((2, *size), jnp.float32)
    v = jax.eval_shape(model.init, jax.random.key(0), x)
    endpoint, shape = [(end, out.shape) for end, out in jax.eval_shape(
        functools.partial(model.apply, capture=model.endpoints), v, x)[1].items()
        if len(out.shape) == 4][-1]
    shift, classes = jax.ShapeDtypeStruct(shape, jnp.float32), np.zeros(2, int)
    a, g = jax.eval_shape(functools.partial(attribution._map_gradient, model, endpoint), v, x,
                          shift, classes)
    assert a.shape == g.shape == shape
    assert jax.eval_shape(functools.partial(attribution._guided, model), v, x,
                          classes).shape == x.shape


def test_maps_are_brought_to_the_images_size():
    maps = attribution.resized(jnp.arange(12.0).reshape(1, 3, 4), (6, 8))
    assert maps.shape == (1, 6, 8) and float(maps.mean()) == pytest.approx(5.5)


def test_deletion_and_insertion_start_and_end_at_the_image_and_the_fill():
    x = jnp.asarray(IMAGES)
    maps = call(attribution.saliency).sum(-1)
    whole, blank = (np.asarray(jax.nn.softmax(MODEL.apply(variables(), images)))[
        np.arange(3), CLASSES] for images in (x, jnp.zeros_like(x)))
    down, up = (call(function, maps, steps=8) for function in (
        perturbation.deletion, perturbation.insertion))
    for curve, ends in ((down, (whole, blank)), (up, (blank, whole))):
        assert curve.probability.shape == (3, 9) and curve.fraction[[0, -1]].tolist() == [0, 1]
        np.testing.assert_allclose(curve.probability[:, [0, -1]].T, ends, atol=1e-6)
        assert ((curve.score > 0) & (curve.score < 1)).all()


def test_deletion_takes_the_most_important_pixels_first():
    class Corner(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return jnp.stack([10 * x[:, 0, 0, 0], 0 * x[:, 0, 0, 0]], -1)

    x = jnp.ones((1, 4, 4, 1))
    right = np.zeros((1, 4, 4))
    right[0, 0, 0] = 1
    scores = [perturbation.deletion(Corner(), {}, x, maps, 0, steps=16).score[0]
              for maps in (right, -right)]
    assert scores[0] < 0.55 < 0.95 < scores[1]


def test_maps_lose_their_likeness_as_layers_are_randomised():
    layers = ("conv1", "conv2", "conv3", "head")
    x = jnp.asarray(IMAGES)
    found = perturbation.randomization_check(
        lambda v: attribution.saliency(MODEL, v, x, CLASSES), variables(), layers)
    assert [f.layer for f in found] == list(reversed(layers))
    assert found[-1].correlation < 0.5
    # A map that looks at the image alone fails the check.
    edges = perturbation.randomization_check(lambda v: jnp.abs(x), variables(), layers)
    assert [f.correlation for f in edges] == pytest.approx([1.0] * 4)
    with pytest.raises(UserError, match="no layer 'conv9' here; there are: conv1"):
        perturbation.randomization_check(lambda v: x, variables(), ["conv9"])
    with pytest.raises(UserError, match="nothing below an array: leave out '/x'"):
        perturbation.randomization_check(lambda v: x, variables(), ["head/kernel/x"])


@pytest.mark.parametrize(("values", "others", "expected"), [
    ([1, 2, 3, 4], [1, 8, 27, 64], 1.0), ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
    # scipy.stats.spearmanr gives 0.9486832980505139 with this tie.
    ([1, 2, 3, 4], [1, 2, 2, 4], 0.9486832980505139)])
def test_the_rank_correlation_is_spearmans(values, others, expected):
    found = perturbation._rank_correlation(np.array(values), np.array(others))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("function", "arguments"), [
    (attribution.saliency, {}), (attribution.smooth_grad, {"samples": 2}),
    (attribution.integrated_gradients, {"steps": 2}), (attribution.guided_backprop, {}),
    (attribution.grad_cam, {"endpoint": "conv3"}),
    (attribution.grad_cam_plus_plus, {"endpoint": "conv3"}),
    (perturbation.occlusion, {"window": 8, "stride": 8}),
    (perturbation.deletion, {"maps": np.ones((3, 16, 16)), "steps": 2}),
    (perturbation.insertion, {"maps": np.ones((3, 16, 16)), "steps": 2})])
def test_images_may_be_of_numpy(function, arguments):
    found, expected = (function(MODEL, variables(), images, **arguments)
                       for images in (np.asarray(IMAGES), jnp.asarray(IMAGES)))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(("function", "message"), [
    (lambda: call(attribution.saliency, classes=5), "integers from 0 to 4"),
    (lambda: call(attribution.saliency, classes=1.5), "integers from 0 to 4"),
    (lambda: call(attribution.saliency, classes="ant"), "integers from 0 to 4"),
    (lambda: call(attribution.saliency, classes=[1, 2]), "one for each of the 3 images or one"),
    (lambda: call(attribution.grad_cam, "stage"), "Did you mean 'stage"),
    (lambda: call(attribution.grad_cam, "features"), "is no map"),
    (lambda: call(attribution.smooth_grad, samples=0), "samples must be 1 or more"),
    (lambda: call(attribution.integrated_gradients, steps=0), "steps must be 1 or more"),
    (lambda: call(perturbation.occlusion, window=2, stride=3), "leaves pixels between"),
    (lambda: call(perturbation.deletion, np.ones((3, 4, 4))), "maps must be"),
    (lambda: call(perturbation.deletion, np.ones((3, 16, 16)), steps=0), "steps must be"),
])
def test_what_cannot_be_is_a_user_error(function, message):
    with pytest.raises(UserError, match=message):
        function()


@pytest.mark.parametrize("activation", [nn.silu, nn.hard_swish, nn.hard_sigmoid])
def test_activations_that_are_no_rectifiers_keep_their_derivatives_when_guided(activation):
    class Net(nn.Module):
        num_classes: int = 3
        endpoints = ("logits",)

        @nn.compact
        def __call__(self, x, train=False, capture=()):
            return nn.Dense(3)(activation(nn.Conv(4, (3, 3))(x)).mean((1, 2)))

    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    model = Net()
    v = model.init(jax.random.key(1), x)
    np.testing.assert_allclose(attribution.guided_backprop(model, v, x),
                               attribution.input_gradient(model, v, x), atol=1e-7)


class Squares(nn.Module):
    """Of which the derivative by a pixel is the pixel."""

    @nn.compact
    def __call__(self, x, train=False):
        return jnp.square(x).sum((1, 2, 3))[:, None] / 2


def test_the_noise_of_smooth_grad_is_a_share_of_each_images_range():
    x = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3)) * jnp.array([1.0, 9.0])[
        :, None, None, None]
    found = attribution.smooth_grad(Squares(), {}, x, 0, noise=0.2, samples=1)
    np.testing.assert_allclose((found - x).std((1, 2, 3)), [0.2, 1.8], rtol=0.05)


def test_integrated_gradients_start_from_their_baseline():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    found = attribution.integrated_gradients(Squares(), {}, x, 0, baseline=0.5, steps=2)
    np.testing.assert_allclose(found.values, (x**2 - 0.25) / 2, atol=1e-6)
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-5)


def test_an_image_that_is_the_baseline_has_no_error():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3)).at[1].set(0.5)
    found = attribution.integrated_gradients(Squares(), {}, x, 0, baseline=0.5, steps=2)
    assert found.completeness_error[1] == 0 and not found.values[1].any()


def test_layers_stay_randomised_as_the_next_are():
    values, seen = np.arange(50.0), []
    perturbation.randomization_check(
        lambda v: seen.append(v["params"]) or np.ones((1, 4)),
        {"params": {"first": values, "last": values}}, ("first", "last"))
    changed = [{name for name, a in params.items() if (a != values).any()} for params in seen]
    assert changed == [set(), {"last"}, {"first", "last"}]


def test_covering_with_what_is_there_already_changes_nothing():
    x = jnp.full((1, 16, 16, 3), 0.25)
    found = perturbation.occlusion(MODEL, variables(), x, 0, window=5, stride=3, fill=0.25)
    np.testing.assert_array_equal(found, 0)
