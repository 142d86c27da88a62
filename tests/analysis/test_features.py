"""Similarity, principal components and translation, against definitions and other libraries."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

import cnnjax
from cnnjax.analysis import features
from cnnjax.models.layers import Conv, Endpoints, MaxPool
from cnnjax.types import UserError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 9))


def test_linear_cka_is_the_papers_formula_and_does_not_see_rotation_shift_and_scale():
    centred = [a - a.mean(0) for a in (X, Y)]

    def norm(a, b):
        return np.linalg.norm(a.T @ b)
    expected = norm(*centred[::-1])**2 / (norm(centred[0], centred[0])
                                          * norm(centred[1], centred[1]))
    assert features.linear_cka(X, Y) == pytest.approx(expected)
    rotation = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    assert features.linear_cka(X, 3 * X @ rotation + 5) == pytest.approx(1)
    assert features.linear_cka(X.reshape(40, 2, 3, 1), X) == pytest.approx(1)
    assert features.linear_cka(X, Y) < 0.4


def test_principal_components_are_scikit_learns():
    decomposition = pytest.importorskip("sklearn.decomposition")
    theirs = decomposition.PCA(3, svd_solver="full").fit(X)
    ours = features.pca(X, 3)
    signs = np.sign((theirs.components_ * ours.components).sum(1))
    np.testing.assert_allclose(ours.components, theirs.components_ * signs[:, None], atol=1e-10)
    np.testing.assert_allclose(ours.points, theirs.transform(X) * signs, atol=1e-10)
    np.testing.assert_allclose(ours.explained, theirs.explained_variance_ratio_)


class Net(nn.Module):
    """A 3x3 convolution, and a pooling of stride 2 if asked for."""

    pool: bool
    endpoints = ("map", "features")

    @nn.compact
    def __call__(self, x, train=False, capture=()):
        end = Endpoints(self.endpoints, capture)
        x = nn.relu(Conv(4, 3, name="conv")(x))
        x = end("map", MaxPool(2)(x) if self.pool else x)
        return end.result(end("features", x.mean((1, 2))))


@functools.cache
def curve(pool, endpoint="map"):
    images = np.random.default_rng(1).normal(size=(2, 24, 20, 3)).astype(np.float32)
    model = Net(pool)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    return features.translation_curve(model, variables, images, endpoint, range(7)).difference


def test_a_convolution_of_stride_1_is_equivariant_at_every_shift():
    assert curve(pool=False).max() < 1e-6


def test_after_a_pooling_of_stride_2_only_even_shifts_are():
    assert curve(pool=True)[::2].max() < 1e-6
    assert curve(pool=True)[1::2].min() > 0.1


def test_pooled_features_change_a_little_as_pixels_leave_the_image():
    difference = curve(False, "features")
    assert difference[0] == 0 and 0 < difference[1] < difference[6] < 0.7


def test_a_model_of_the_table_has_a_curve_for_maps_and_logits():
    model = cnnjax.create_model("simple_cnn", 10, widths=(4, 4))
    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    maps = features.translation_curve(model, variables, images, "stage1", [0, 1, 2]).difference
    assert maps[0] == 0 and maps[2] < 1e-5 < maps[1]
    logits = features.translation_curve(model, variables, images, "logits", [0, 3]).difference
    assert logits[0] == 0 < logits[1]


def test_a_module_that_crops_is_compared_where_it_has_a_map():
    class Cropping(nn.Module):
        endpoints = ("map",)

        @nn.compact
        def __call__(self, x, train=False, capture=()):
            end = Endpoints(self.endpoints, capture)
            return end.result(end("map", nn.Conv(4, (3, 3), padding="VALID")(x[:, 3:, 2:-5])))

    images = np.random.default_rng(1).normal(size=(2, 24, 20, 3)).astype(np.float32)
    variables = jax.jit(Cropping().init)(jax.random.key(0), images)
    found = features.translation_curve(Cropping(), variables, images, "map", range(5))
    assert found.difference.max() < 1e-6


def test_a_flattened_map_is_compared_whole():
    model = cnnjax.create_model("simple_cnn", 4, widths=(4, 4, 4), global_pool=False)
    images = np.random.default_rng(1).normal(size=(2, 28, 28, 1)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    found = features.translation_curve(model, variables, images, "features", [0, 1]).difference
    assert found[0] == 0 < found[1]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: features.linear_cka(X, Y[:3]), "the same examples"),
    (lambda: features.linear_cka(X, np.ones((40, 2))), "the same for all"),
    (lambda: features.pca(X, 7), "1 to 6 components, not 7"),
    (lambda: features.translation_curve(Net(False), {}, np.ones((1, 8, 8, 3)), "map", [-1]),
     "from 0 on"),
    (lambda: features.translation_curve(Net(False), {}, np.ones((1, 8, 8, 3)), "map", [0.5]),
     "whole pixels"),
    (lambda: features.translation_curve(
        Net(False), {"params": {"conv": {"kernel": np.ones((3, 3, 3, 4), np.float32)}}},
        np.ones((1, 8, 8, 3), np.float32), "map", [7]), "use larger images"),
    (lambda: features.translation_curve(Net(False), {}, np.ones((1, 8, 8, 3)), "mop", [1]),
     "Did you mean 'map'"),
])
def test_what_cannot_be_is_a_user_error(call, message):
    with pytest.raises(UserError, match=message):
        call()
