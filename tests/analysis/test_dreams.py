"""DeepDream and the inversion of features, on a small network."""

import numpy as np
import pytest
from attribution_case import WIDTHS
from test_maximisation import MODEL, PREPROCESS, activations, variables

from cnnjax.analysis import deep_dream, invert_features
from cnnjax.types import UserError

PHOTO = np.random.default_rng(0).uniform(0.2, 0.8, (16, 16, 3)).astype(np.float32)


def call(function, *args, image=PHOTO, **kwargs):
    return function(MODEL, variables(), image, *args, preprocess=PREPROCESS, **kwargs)


def test_a_dream_strengthens_what_the_layer_sees_and_one_channel_of_it_alone():
    def strength(image):
        return (activations(image[None])["stage2"][0] ** 2).mean((0, 1))

    before = strength(PHOTO)
    for channel in (None, 3):
        found = call(deep_dream, "stage2", channel=channel, octaves=2, steps=6)
        assert found.shape == PHOTO.shape and found.min() >= 0 and found.max() <= 1
        gain = strength(found) - before
        assert (gain.mean() if channel is None else gain[channel]) > 0.1 * before.mean()
    np.testing.assert_array_equal(found, call(deep_dream, "stage2", channel=3, octaves=2, steps=6))


@pytest.mark.slow
def test_an_inversion_has_the_features_of_the_image():
    found = call(invert_features, "stage2", steps=60, tv_weight=0.0)
    a, b = (np.asarray(activations(x[None])["stage2"]) for x in (found.image, PHOTO))
    error = ((a - b)**2).sum() / (b**2).sum()
    assert found.image.shape == PHOTO.shape and found.history.shape == (60,)
    assert error == pytest.approx(found.history[-1], rel=0.3)
    assert error < 0.3 * found.history[0]


@pytest.mark.parametrize(("function", "message"), [
    (lambda: call(deep_dream, "stage9"), "Did you mean 'stage"),
    (lambda: call(deep_dream, "stage2", channel=WIDTHS[1]), "'stage2' has 8 channels, 0 to 7"),
    (lambda: call(deep_dream, "stage2", octaves=0), "octaves must be 1"),
    (lambda: call(deep_dream, "stage2", image=PHOTO * 255), "numbers from 0 to 1"),
    (lambda: call(invert_features, "stage9"), "Did you mean 'stage"),
    (lambda: call(invert_features, "stage2", steps=0), "steps must be 1"),
    (lambda: call(invert_features, "stage2", image=PHOTO[None]), r"must be \(H, W, C\)"),
])
def test_what_cannot_be_is_a_user_error(function, message):
    with pytest.raises(UserError, match=message):
        function()
