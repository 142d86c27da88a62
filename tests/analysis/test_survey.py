"""A set seen once: what moves each channel, what is said, and what is wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnnjax
from cnnjax.analysis import mistakes
from cnnjax.analysis.features import cka_matrix, linear_cka
from cnnjax.analysis.perturbation import randomization_check
from cnnjax.analysis.survey import _look, map_endpoints, survey
from cnnjax.models import lookup
from cnnjax.types import UserError

MODEL = cnnjax.create_model("simple_cnn", 10, widths=(4, 6))
IMAGES = np.random.default_rng(0).normal(size=(5, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    return jax.tree.map(np.asarray, jax.jit(MODEL.init)(jax.random.key(0), IMAGES))


@pytest.fixture(scope="module")
def seen(variables):
    return survey(MODEL, variables, (IMAGES[:3], IMAGES[3:]))


def test_a_survey_in_batches_has_what_the_model_gives_at_once(variables, seen):
    logits, found = MODEL.apply(variables, IMAGES, capture=("stage1", "features"))
    np.testing.assert_allclose(seen.logits, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen.features, found["features"], rtol=1e-4, atol=1e-5)
    flat = np.asarray(found["stage1"]).reshape(5, 64, 4)
    np.testing.assert_allclose(seen.largest["stage1"], flat.max(1), rtol=1e-5)
    rows, cols = np.moveaxis(seen.where["stage1"], -1, 0)
    np.testing.assert_array_equal(rows * 8 + cols, flat.argmax(1))
    assert seen.map_size["stage1"] == (8, 8) and seen.pooled["stage1"].shape == (5, 7 * 7 * 4)
    np.testing.assert_allclose(seen.probabilities.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("ends", [(2, 3), (1, 3), (0, 5)])
def test_batches_of_a_survey_may_be_of_any_sizes(variables, seen, ends):
    found = survey(MODEL, variables, np.split(IMAGES, ends))
    np.testing.assert_allclose(found.logits, seen.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.where["stage1"], seen.where["stage1"])


def test_the_strongest_places_of_a_survey_are_those_of_strongest_patches(variables, seen):
    for endpoint, channel in (("conv1", 2), ("stage2", 5)):
        patches = cnnjax.analysis.strongest_patches(MODEL, variables, IMAGES, endpoint, channel, 3)
        found = seen.strongest(endpoint, channel, 3)
        assert [(p.image, p.position) for p in found] == [(p.image, p.position) for p in patches]
        assert [p.value for p in found] == pytest.approx([p.value for p in patches], rel=1e-5)


def test_channels_that_never_differ_are_not_shown(seen):
    dead = dict(seen.largest, stage1=seen.largest["stage1"] * np.array([1, 0, 1, 1]))
    found = type(seen)(**{**vars(seen), "largest": dead}).live_channels("stage1", 4)
    assert found == [0, 2, 3]
    assert seen.live_channels("stage1", 2) == [0, 3]


def test_maps_alone_can_be_surveyed(variables):
    assert map_endpoints(MODEL, variables, IMAGES.shape) == ("conv1", "stage1", "conv2", "stage2")
    assert map_endpoints(MODEL, variables, IMAGES.shape, ["stage2", "conv1"]) == ("conv1", "stage2")
    with pytest.raises(UserError, match="'features' is no map .* The maps are: conv1"):
        map_endpoints(MODEL, variables, IMAGES.shape, ["features"])
    with pytest.raises(UserError, match="Did you mean 'stage"):
        map_endpoints(MODEL, variables, IMAGES.shape, ["stage3"])
    with pytest.raises(UserError, match="no images"):
        survey(MODEL, variables, (IMAGES[:0],))


def test_the_matrix_of_cka_is_the_cka_of_every_pair():
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(12, n)) for n in (3, 7, 30)]
    found = cka_matrix(layers)
    for i, j in np.ndindex(3, 3):
        # Kornblith et al., section 3: |Y^T X|^2 / (|X^T X| |Y^T Y|).
        x, y = (layer - layer.mean(0) for layer in (layers[i], layers[j]))
        expected = np.linalg.norm(y.T @ x)**2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
        assert found[i, j] == pytest.approx(expected)
        assert linear_cka(layers[i], layers[j]) == pytest.approx(expected)
    with pytest.raises(UserError, match="give one or more"):
        cka_matrix([])


def test_confusions_are_counted_by_true_class_and_answer():
    labels, said = [0, 0, 1, 2, 2, 2], [0, 1, 1, 0, 0, 2]
    matrix = mistakes.confusion_matrix(labels, said, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0]]
    assert mistakes.most_confused(labels, said) == [(2, 0, 2), (0, 1, 1)]
    assert mistakes.most_confused(labels, said, 1) == [(2, 0, 2)]
    assert mistakes.most_confused([0, 1], [0, 1]) == []


@pytest.mark.parametrize(("labels", "said", "message"), [
    ([0, 3], [0, 1], "labels has 3; of 3 classes they are whole numbers from 0 to 2"),
    ([0, 1], [0, -1], "said has -1"),
    ([0, 0.5], [0, 1], "labels has 0.5"),
    ([0, 1, 2], [0, 1], "give as many")])
def test_no_confusion_is_counted_of_what_is_no_class(labels, said, message):
    with pytest.raises(UserError, match=message):
        mistakes.confusion_matrix(labels, said, 3)


def test_of_other_numbers_of_labels_and_answers_no_mistakes_are_named():
    for labels, said in (([0, 1], [0]), ([[0, 1]], [[0, 1]])):
        with pytest.raises(UserError, match="most_confused: labels .* give as many"):
            mistakes.most_confused(labels, said)
    for labels, probabilities in (([0, 1], np.eye(3)), ([0], [0.5])):
        with pytest.raises(UserError, match="confident_mistakes: labels .* give as many"):
            mistakes.confident_mistakes(probabilities, labels)


def test_the_surest_mistakes_come_first():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    assert mistakes.confident_mistakes(probabilities, [0, 1, 0, 0]).tolist() == [2, 3, 1]
    assert mistakes.confident_mistakes(probabilities, [0, 1, 0, 0], 1).tolist() == [2]
    assert mistakes.confident_mistakes(probabilities, [0, 0, 1, 1]).tolist() == []


def test_layers_of_a_group_are_randomised_at_once(variables):
    def bytes_of(v):
        return jax.tree.map(np.asarray, v["params"])

    looked = []

    def attribute(v):
        looked.append(bytes_of(v))
        return np.arange(12.0).reshape(1, 3, 4)

    found = randomization_check(attribute, variables, [("conv1",), ("conv2", "head")])
    assert [item.layer for item in found] == ["conv2", "conv1"]
    same = [{name: jax.tree.all(jax.tree.map(np.array_equal, p[name], looked[0][name]))
             for name in ("conv1", "conv2", "head")} for p in looked]
    assert same[1] == {"conv1": True, "conv2": False, "head": False}
    assert same[2] == {"conv1": False, "conv2": False, "head": False}


FAMILIES = {lookup(name).module: name for name in reversed(cnnjax.list_models())}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAMILIES.values()))
def test_one_model_of_every_family_can_be_surveyed(name):
    model, size = cnnjax.create_model(name, 10), lookup(name).input_size
    x = jax.ShapeDtypeStruct((2, *size), jnp.float32)
    v = jax.eval_shape(model.init, jax.random.key(0), x)
    maps = map_endpoints(model, v, x.shape)
    found = jax.eval_shape(functools.partial(_look, model, maps, 7), v, x)
    assert maps and found["logits"].shape == (2, 10) and found["features"].ndim == 2
    for name in maps:
        assert found["where"][name].shape == (*found["largest"][name].shape, 2)
