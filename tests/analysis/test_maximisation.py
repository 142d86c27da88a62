"""Images made for an objective: against their definitions, on small networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_case import WIDTHS, variables

import cnnjax
from cnnjax.analysis import (
    Transforms,
    channel,
    class_logit,
    direction,
    diverse,
    maximisation,
    maximise,
    neuron,
)
from cnnjax.types import Preprocess, UserError

MODEL = cnnjax.create_model("simple_cnn", 5, widths=WIDTHS)
PREPROCESS = Preprocess((16, 16), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def run(objectives, steps=12, **kwargs):
    return maximise(MODEL, variables(), objectives,
                    **{"preprocess": PREPROCESS, "steps": steps, **kwargs})


def activations(images):
    x = (jnp.asarray(images) - np.array(PREPROCESS.mean)) / np.array(PREPROCESS.std)
    logits, found = MODEL.apply(variables(), x, capture=MODEL.endpoints)
    return {**found, "logits": logits}


VECTOR = np.linspace(-1, 1, WIDTHS[1])
MEANINGS = [(channel("stage2", 3), lambda a: a["stage2"][0, :, :, 3].mean()),
            (neuron("stage2", 3), lambda a: a["stage2"][0, 2, 2, 3]),
            (neuron("stage2", 3, (0, 3)), lambda a: a["stage2"][0, 0, 3, 3]),
            (direction("stage2", VECTOR), lambda a: (a["stage2"][0] @ VECTOR).mean()),
            (direction("features", np.arange(WIDTHS[2])),
             lambda a: a["features"][0] @ np.arange(WIDTHS[2])),
            (class_logit(4), lambda a: a["logits"][0, 4])]


@pytest.mark.slow
def test_the_history_is_the_objective_of_the_image_and_it_rises():
    objectives = [objective for objective, _ in MEANINGS]
    found = run(objectives, transforms=None)
    before = run(objectives, steps=11, transforms=None)
    assert found.images.shape == (6, 16, 16, 3) and found.history.shape == (12, 6)
    assert (found.images >= 0).all() and (found.images <= 1).all()
    for i, (_, meaning) in enumerate(MEANINGS):
        expected = meaning(activations(before.images[i:i + 1]))
        np.testing.assert_allclose(found.history[11, i], expected, rtol=1e-4, atol=1e-5)
        assert found.history[11, i] > found.history[0, i] + 0.05


@pytest.mark.slow
def test_an_image_depends_on_the_seed_and_its_place_alone():
    two = [class_logit(1), channel("stage2", 3)]
    found, again, other = (run(two, steps=4, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(found.images, again.images)
    assert np.abs(found.images - other.images).max() > 0.01
    alone = run(two[:1], steps=4)
    np.testing.assert_allclose(alone.images[0], found.images[0], atol=1e-4)
    split = run([class_logit(1), class_logit(2)], steps=4, batch_size=1)
    np.testing.assert_allclose(split.images[0], found.images[0], atol=1e-4)


class Steps(nn.Module):
    """Two channels: steps of brightness from left to right of more than 0.1, and of more than 3."""

    endpoints = ("steps",)

    @nn.compact
    def __call__(self, x, train=False, capture=()):
        rise = (x[:, :, 1:] - x[:, :, :-1]).mean(-1, keepdims=True)
        return rise.mean((1, 2)), {"steps": nn.relu(rise - jnp.array([0.1, 3.0]))}


@pytest.mark.parametrize("parameterisation", ["fourier", "pixels"])
def test_a_channel_that_is_silent_for_faint_noise_gets_an_image_too(parameterisation):
    def made(*numbers, batch_size=None):
        return maximise(Steps(), {}, [channel("steps", n) for n in numbers], size=16, steps=80,
                        transforms=None, parameterisation=parameterisation, batch_size=batch_size)

    found = made(0, 1)
    assert found.history[0, 0] == 0 and found.history[-1, 0] > 0.001
    # No step between pixels in [0, 1] is larger than 3.
    assert (found.history[:, 1] == 0).all()
    np.testing.assert_allclose(made(0, 1, batch_size=1).images, found.images, atol=1e-4)


@pytest.mark.slow
def test_the_loop_of_a_gpu_makes_the_steps_of_a_cpu(monkeypatch):
    loose = run(class_logit(1), steps=5)
    monkeypatch.setattr(maximisation.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(maximisation, "SCANNED", 3)
    found = run(class_logit(1), steps=5)
    np.testing.assert_allclose(found.history, loose.history, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.images, loose.images, atol=1e-3)


def test_a_step_computes_no_gradient_of_the_weights():
    model = cnnjax.create_model("simple_cnn", 10, widths=(64, 64))
    v = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    x = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
    setting = maximisation.Setting(model, ("logits",), (32, 32), Transforms(), 0.05, False)

    def flops(function):
        return jax.jit(function).lower(v, x).compile().cost_analysis()["flops"]

    def total(v, x):
        return maximisation._activations(setting, v, x)["logits"].sum()

    forward, by_image, by_weights = (flops(f) for f in (
        total, jax.grad(total, 1), lambda v, x: jax.grad(total, (0, 1))(v, x)))
    assert by_image < 2.4 * forward and by_weights > 2.6 * forward


@pytest.mark.slow
def test_diversity_makes_the_images_of_one_objective_less_alike():
    def cosine(found):
        maps = activations(found.images)["stage2"].reshape(3, -1, WIDTHS[1])
        gram = np.einsum("npc,npd->ncd", maps, maps).reshape(3, -1)
        gram /= np.linalg.norm(gram, axis=1, keepdims=True)
        return (gram @ gram.T)[np.triu_indices(3, 1)].mean()

    alike, unlike = (run(diverse(channel("stage2", 3), 3, weight), steps=30)
                     for weight in (0.0, 4.0))
    assert unlike.images.shape[0] == 3 and 1 - cosine(unlike) > 3 * (1 - cosine(alike))


@pytest.mark.slow
@pytest.mark.parametrize(("kwargs", "shape"), [
    ({"size": (12, 15)}, (12, 15, 3)), ({"parameterisation": "pixels"}, (16, 16, 3)),
    ({"transforms": Transforms(pad=3)}, (16, 16, 3)), ({"colors": None}, (16, 16, 3))])
def test_other_sizes_spaces_and_transforms_rise_too(kwargs, shape):
    found = run(class_logit(4), **kwargs)
    assert found.images.shape == (1, *shape)
    assert found.history[-3:].mean() > found.history[:3].mean()


@pytest.mark.slow
def test_grey_images_need_no_colours_and_no_preprocess():
    model = cnnjax.create_model("lenet5", 10)
    v = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    found = maximise(model, v, class_logit(0), size=28, channels=1, steps=8)
    assert found.images.shape == (1, 28, 28, 1) and found.history[-1] > found.history[0]
    with pytest.raises(UserError, match="does not take images of 40x40 pixels"):
        maximise(model, v, class_logit(0), size=40, channels=1)


@pytest.mark.parametrize(("function", "message"), [
    (lambda: run(class_logit(0), preprocess=None, size=16, channels=1),
     "1 channels, which `maximise` is told by size=, channels= or preprocess=: conv1"),
    (lambda: run(channel("stage9", 0)), "Did you mean 'stage"),
    (lambda: run(channel("stage2", 8)), "'stage2' has 8 channels, 0 to 7; there is no 8"),
    (lambda: run(channel("stage2", -1)), "there is no -1"),
    (lambda: run(class_logit(5)), "'logits' has 5 classes, 0 to 4"),
    (lambda: run(neuron("stage2", 0, (4, 0))), "map of 4x4 positions"),
    (lambda: run(neuron("features", 0, (8, 0))), "map of no positions"),
    (lambda: run(direction("stage2", [1.0])), "vector of 8 numbers"),
    (lambda: diverse(class_logit(1), 1), "copies must be 2"),
    (lambda: run([]), "one objective or more"),
    (lambda: run("stage2"), "made by channel, neuron"),
    (lambda: run(class_logit(1), steps=0), "steps must be 1"),
    (lambda: run(class_logit(1), batch_size=0), "batch_size must be 1"),
    (lambda: run(class_logit(1), lr=0.0), "lr must be above 0"),
    (lambda: run(class_logit(1), channels=1), "preprocess is for 3"),
    (lambda: run(class_logit(1), preprocess=None), "size in pixels"),
    (lambda: run(class_logit(1), parameterisation="dct"), "one of fourier, pixels"),
    (lambda: run(class_logit(1), colors=np.eye(2)), r"array of \(3, 3\)"),
])
def test_what_cannot_be_is_a_user_error(function, message):
    with pytest.raises(UserError, match=message):
        function()


@pytest.mark.slow
def test_the_weight_of_diversity_is_relative_to_the_size_of_the_objective():
    one, large = (run(diverse(direction("stage2", scale * VECTOR), 2, 4.0), steps=6)
                  for scale in (1.0, 1000.0))
    np.testing.assert_allclose(one.images, large.images, atol=1e-3)
