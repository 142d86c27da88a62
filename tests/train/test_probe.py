"""Features probed, against the definitions written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from scipy import optimize, special

from cnnjax.train import features, probe
from cnnjax.train.views import OverViews, views_of


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    return (rng.normal(size=(120, 5)) + 1.5 * np.eye(3, 5)[labels]).astype(np.float32), labels


def test_neighbours_vote_by_cosine(data):
    features, labels = data
    train, queries = features[:90], features[90:]
    expected = []
    for query in queries:
        cosine = train @ query / np.linalg.norm(train, axis=1) / np.linalg.norm(query)
        votes = np.zeros(3)
        for i in np.argsort(-cosine)[:7]:
            votes[labels[i]] += np.exp(cosine[i] / 0.07)
        expected.append(votes.argmax())
    found = probe.knn_predict(train, labels[:90], queries, num_classes=3, neighbours=7, rows=16)
    np.testing.assert_array_equal(found, expected)


def test_features_are_read_when_two_more_batches_have_begun(monkeypatch):
    begun, read = [], []
    get = features.jax.device_get
    monkeypatch.setattr(features.jax, "device_get", lambda part: read.append(len(begun)) or
                        get(part))

    def batches():
        for i in range(5):
            begun.append(i)
            images = np.full((2, 3), 2 * i, np.float32) + np.arange(2, dtype=np.float32)[:, None]
            yield {"image": images, "label": np.arange(2) + 2 * i,
                   "mask": np.array([1, i < 4], np.float32)}

    class Double:
        def apply(self, variables, images, train):
            return images * variables

    found = features.compute_features(Double(), 2.0, {}, batches(), lambda _, batch: batch,
                                      lambda images: images, Mesh(jax.devices()[:1], "data"), 10)
    np.testing.assert_array_equal(found["label"], np.arange(9))
    np.testing.assert_array_equal(found["image"], np.full((9, 3), 2) * np.arange(9)[:, None])
    assert read == [3, 4, 5, 5, 5]


def test_the_nearest_are_found_without_sorting_all():
    bank, labels, part = (jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in (
        ((200, 5), np.float32), ((200,), np.int32), ((16, 5), np.float32)))
    program = probe._vote.lower(bank, labels, part, 3, 7, 0.07).compile().as_text()
    assert "TopK" in program and " sort(" not in program


def test_the_linear_probe_is_at_the_minimum_that_scipy_finds(data):
    features, labels = data

    def loss(flat):
        weights, biases = flat[:15].reshape(5, 3), flat[15:]
        logs = special.log_softmax(features @ weights + biases, axis=-1)
        return -logs[np.arange(120), labels].mean() + 0.005 * np.square(weights).sum()

    best = optimize.minimize(loss, np.zeros(18), method="BFGS")
    weights, biases = probe.fit_linear(features, labels, num_classes=3, penalty=0.01)
    flat = np.concatenate([np.ravel(weights), biases]).astype(np.float64)
    assert loss(flat) == pytest.approx(best.fun, abs=1e-5)
    np.testing.assert_allclose(weights, best.x[:15].reshape(5, 3), atol=0.01)


def test_the_program_of_the_linear_probe_is_that_of_any_features(data, cache):
    features, labels = data
    kept = []
    for factor in (1, 2):
        probe.fit_linear(factor * features, labels, num_classes=3, steps=1)
        kept.append({entry.name for entry in (cache / "jax").glob("*-cache")})
    assert kept[0] and kept[1] == kept[0]


def test_views_are_the_image_its_mirror_and_its_corners():
    images = jnp.arange(2 * 8 * 8 * 1, dtype=jnp.float32).reshape(2, 8, 8, 1)
    flipped = views_of(images, "flip")
    np.testing.assert_array_equal(flipped[:, 1], images[:, :, ::-1])
    crops = views_of(images, "ten_crop")
    assert crops.shape == (2, 10, 8, 8, 1)
    # 7 of 8 pixels: the corner pixels of the image are those of its corner crops.
    for i, (y, x) in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1)]):
        np.testing.assert_allclose(crops[:, i, y, x], images[:, y, x], rtol=1e-6)
    np.testing.assert_array_equal(crops[:, 5:], crops[:, :5, :, ::-1])


def test_the_answer_over_views_is_the_mean_of_the_probabilities():
    class Sums:
        def apply(self, variables, images, train=False):
            return images[:, 0, :3, 0] * variables

    images = jax.random.normal(jax.random.key(0), (4, 2, 3, 1))
    answer = jnp.exp(OverViews(Sums(), "flip").apply(2.0, images))
    expected = (jax.nn.softmax(2 * images[:, 0, :, 0]) + jax.nn.softmax(
        2 * images[:, 0, ::-1, 0])) / 2
    np.testing.assert_allclose(answer, expected, rtol=1e-5)


def test_the_fifth_view_is_the_centre():
    image = jnp.arange(16.0 * 16).reshape(1, 16, 16, 1)
    crop = views_of(image, "five_crop")[0, 4]
    np.testing.assert_allclose(crop, jax.image.resize(image[0, 1:15, 1:15], (16, 16, 1), "linear"),
                               rtol=1e-6)


def test_features_are_standardized_by_those_to_train_on():
    train, other = np.array([[0.0, 5.0], [4.0, 5.0]]), np.array([[6.0, 5.5]])
    ours, theirs = probe.standardized(train, other)
    # The second never changes, and is left as large as it is.
    np.testing.assert_allclose(ours, [[-1, 0], [1, 0]])
    np.testing.assert_allclose(theirs, [[2, 0.5]])


def test_where_there_are_fewer_than_the_neighbours_all_vote():
    found = probe.knn_predict(np.eye(3), np.array([2, 0, 1]), np.eye(3), num_classes=3)
    np.testing.assert_array_equal(found, [2, 0, 1])
