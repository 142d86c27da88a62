import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cnnjax.data import augment
from cnnjax.data.augment import policies
from cnnjax.data.augment.operations import CODES, SIGNED
from cnnjax.types import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 9, 7, 3), np.uint8)


def test_normalize():
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    out = augment.normalize(jnp.asarray(IMAGES), mean, std)
    np.testing.assert_allclose(out, (IMAGES / 255 - mean) / std, atol=1e-6)
    assert augment.normalize(jnp.asarray(IMAGES), mean, std, jnp.bfloat16).dtype == jnp.bfloat16


def test_resize_to_the_same_size_does_nothing():
    images = jnp.asarray(IMAGES)
    assert augment.resize(images, (9, 7)) is images


@pytest.mark.parametrize(("method", "code"), [("bilinear", 2), ("bicubic", 3)])
@pytest.mark.parametrize("size", [(5, 4), (20, 14), (9, 14)])
def test_resize_is_that_of_pillow(method, code, size):
    from PIL import Image
    images = IMAGES[:4] // 2 + 64  # Pillow clips to 0..255 between its two passes too.
    ours = np.asarray(augment.resize(jnp.asarray(images), size, method))
    assert ours.dtype == np.uint8
    theirs = np.stack([Image.fromarray(i).resize(size[::-1], code) for i in images])
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    floats = augment.resize(jnp.asarray(images, jnp.float32), size, method)
    assert np.abs(floats - ours).max() <= 0.501


def test_resize_keeps_to_the_range_of_integers():
    step = jnp.zeros((1, 8, 8, 1), jnp.uint8).at[:, :, 4:].set(255)
    out = np.asarray(augment.resize(step, (8, 16), "bicubic"))
    assert out[..., :7, :].max() == 0 and out[..., 9:, :].min() == 255  # Nothing wraps around.


def test_flip_mirrors_half_of_the_images():
    out = np.asarray(augment.random_flip(jax.random.key(0), jnp.asarray(IMAGES)))
    flipped = (out == IMAGES[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (flipped | (out == IMAGES).all(axis=(1, 2, 3))).all()
    assert 16 < flipped.sum() < 48


@pytest.mark.parametrize(("dtype", "platform"),
                         [(np.uint8, "cpu"), (np.float32, "cpu"), (np.uint8, "gpu")])
def test_pad_crop_shifts_each_image_by_its_own_amount(monkeypatch, dtype, platform):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    p, (h, w) = 3, IMAGES.shape[1:3]
    images = IMAGES.astype(dtype)
    out = np.asarray(augment.random_pad_crop(jax.random.key(0), jnp.asarray(images), p))
    assert (out.shape, out.dtype) == (images.shape, dtype)
    padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0)))
    found = [[(y, x) for y in range(2 * p + 1) for x in range(2 * p + 1)
              if (padded[i, y:y + h, x:x + w] == out[i]).all()] for i in range(len(out))]
    assert all(len(shifts) == 1 for shifts in found)
    shifts = np.array(found)[:, 0]
    assert shifts.min() == 0 and shifts.max() == 2 * p  # Both ends are reached.
    assert len({tuple(s) for s in shifts}) > 25
    assert augment.random_pad_crop(jax.random.key(0), out, 0) is out


PER_ROW = {
    "flip": augment.random_flip,
    "pad_crop": lambda key, x: augment.random_pad_crop(key, x, 2),
    "resized_crop": lambda key, x: augment.random_resized_crop(key, x, (8, 6), (0.2, 0.8)),
    "jitter": lambda key, x: augment.color_jitter(key, x, 0.4, 0.4, 0.4, 0.1),
    "rand_augment": augment.rand_augment,
    "rand_augment_increasing": augment.rand_augment_increasing,
    "trivial_augment_wide": augment.trivial_augment_wide,
    "auto_augment": augment.auto_augment,
    "erasing": lambda key, x: augment.random_erasing(key, x.astype(jnp.float32)),
}


@pytest.mark.parametrize("name", PER_ROW)
def test_what_a_row_draws_is_a_function_of_the_key_and_the_row(name):
    function, images = jax.jit(PER_ROW[name]), jnp.asarray(IMAGES[:32])
    out = np.asarray(function(jax.random.key(0), images))
    assert (out[:8] == function(jax.random.key(0), images[:8])).all()
    assert (out != function(jax.random.key(1), images)).any()
    same = np.asarray(function(jax.random.key(0), jnp.broadcast_to(images[:1], images.shape)))
    assert len({image.tobytes() for image in same}) > (1 if name == "flip" else 5)


@pytest.fixture
def drawn(monkeypatch):
    """What a policy hands to `apply_operations`: codes and magnitudes."""
    calls = []
    monkeypatch.setattr(policies, "apply_operations",
                        lambda images, codes, sizes, **how: calls.append((codes, sizes)))

    def drawn(policy, count=4000):
        policy(jax.random.key(0), jnp.zeros((count, 224, 224, 3), jnp.uint8))
        return (np.asarray(a) for a in calls[-1])

    return drawn


def test_rand_augment_draws_14_operations_and_both_signs_alike(drawn):
    codes, sizes = drawn(policies.rand_augment)
    assert codes.shape == (4000, 2)
    shares = np.bincount(codes.ravel(), minlength=16) / codes.size
    np.testing.assert_allclose(shares, [1 / 14] * 14 + [0, 0], atol=0.01)
    rotations = sizes[codes == CODES["Rotate"]]
    assert set(np.round(rotations, 4)) == {-9.0, 9.0} and abs((rotations > 0).mean() - 0.5) < 0.1


@pytest.mark.slow
def test_trivial_augment_draws_one_operation_of_any_strength(drawn):
    codes, sizes = drawn(policies.trivial_augment_wide, 20_000)
    assert codes.shape == (20_000, 1)
    rotations = sizes[codes == CODES["Rotate"]]
    assert len(np.unique(np.round(rotations, 3))) == 61 and np.abs(rotations).max() == 135


@pytest.mark.slow
def test_auto_augment_draws_pairs_with_their_probabilities(drawn):
    codes, _ = drawn(policies.auto_augment, 20_000)
    # Three of the 25 pairs of the ImageNet policy have Invert, each with a probability of 0.6.
    inverted = (codes == CODES["Invert"]).sum() / 20_000
    assert inverted == pytest.approx(3 * 0.6 / 25, abs=0.006)


@pytest.mark.slow
def test_rand_augment_increasing_applies_half_of_its_operations(drawn):
    codes, sizes = drawn(policies.rand_augment_increasing)
    assert (codes == CODES["Identity"]).mean() == pytest.approx(0.5, abs=0.02)
    rotations = np.abs(sizes[codes == CODES["Rotate"]])
    assert rotations.mean() == pytest.approx(27, abs=0.3)  # Level 9 of 10, of 30 degrees.
    assert rotations.std() == pytest.approx(1.4, abs=0.3) and rotations.max() <= 30


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_mix_pairs_rows_from_both_ends_by_the_weight_it_returns(mixup, per_example):
    values = np.arange(64, dtype=np.float32)
    images, labels = np.tile(values[:, None, None, None], (1, 10, 12, 3)), np.arange(64)
    mix = jax.jit(functools.partial(augment.mix, mixup=mixup, cutmix=1.0, per_example=per_example))
    mixed, other, weight = mix(jax.random.key(2), images, labels)
    assert (other == labels[::-1]).all()
    expected = weight * values + (1 - weight) * values[::-1]
    np.testing.assert_allclose(np.asarray(mixed).mean((1, 2, 3)), expected, rtol=1e-4, atol=1e-3)
    assert (len(set(np.asarray(weight).tolist())) > 10) is per_example
    cut = np.array([len(np.unique(image)) == 2 for image in np.asarray(mixed)])
    if per_example:
        assert 0.3 < cut.mean() < 0.75 if mixup else cut.mean() > 0.8


@pytest.mark.parametrize("alpha", [0.1, 1.0, 8.0])
def test_weights_of_mixup_have_the_beta_distribution(alpha):
    mixing = augment.mixing.draw_mixing(jax.random.key(5), (20_000, 8, 8, 1), alpha, 0.0,
                                        per_example=True)
    at = np.array([1e-9, 1e-4, 0.03, 0.2, 0.5, 0.7, 0.9, 0.999])
    below = (np.asarray(mixing.weight)[:, None] <= at).mean(axis=0)
    np.testing.assert_allclose(below, scipy.stats.beta.cdf(at, alpha, alpha), atol=0.012)


def test_mix_without_luck_changes_nothing():
    images = jnp.asarray(IMAGES[:4], jnp.bfloat16)
    mixed, _, weight = augment.mix(jax.random.key(0), images, jnp.arange(4), mixup=0.2,
                                   cutmix=1.0, probability=0.0)
    assert mixed.dtype == jnp.bfloat16 and (mixed == images).all() and (weight == 1).all()


def test_erasing_fills_a_box_with_zeros_or_noise():
    images = jnp.ones((200, 16, 16, 2))
    erase = jax.jit(augment.random_erasing, static_argnames=("probability", "noise"))
    out = np.asarray(erase(jax.random.key(0), images, 0.3))
    share = (out == 0).mean((1, 2, 3))
    assert (share > 0).mean() == pytest.approx(0.3, abs=0.1)
    assert share[share > 0].min() > 0.015 and share.max() < 0.36
    noise = np.asarray(erase(jax.random.key(0), images, 0.3, noise=True))
    assert ((noise != 1) == (out == 0)).all() and abs(noise[noise != 1].std() - 1) < 0.05


@pytest.mark.slow
def test_the_pipeline_is_its_parts_in_their_order():
    key, images = jax.random.key(4), jnp.asarray(IMAGES[:8])
    statistics = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.3)}
    plain = augment.pipeline(key, images, size=(9, 7), **statistics)
    assert (plain == augment.normalize(images, *statistics.values())).all()
    keys = [jax.random.fold_in(key, i) for i in range(6)]
    policy = augment.make_policy("auto_augment_cifar10", method="bilinear", fill=(1, 2, 3))
    out = augment.pipeline(key, images, size=(8, 8), resized_crop=(0.3, 1.0), flip=True, pad_crop=1,
                           jitter=(0.1, 0.2, 0.3, 0.1), policy=policy, erase=0.5, **statistics)
    x = augment.random_resized_crop(keys[2], images, (8, 8), (0.3, 1.0))
    x = augment.random_pad_crop(keys[1], augment.random_flip(keys[0], x), 1)
    x = policy(keys[4], augment.color_jitter(keys[3], x, 0.1, 0.2, 0.3, 0.1))
    x = augment.random_erasing(keys[5], augment.normalize(x, *statistics.values()), 0.5)
    assert (out == x).all()


@pytest.mark.parametrize(("name", "arguments", "message"), [
    ("rand_augmnt", {}, "Did you mean 'rand_augment'"),
    ("rand_augment", {"magnitude": 31}, "between 0 and 30"),
    ("rand_augment_increasing", {"magnitude": 11}, "between 0 and 10")])
def test_wrong_policies_are_explained(name, arguments, message):
    with pytest.raises(UserError, match=message):
        augment.make_policy(name, **arguments)


def test_where_both_mixings_are_on_each_comes_with_its_probability():
    mixing = augment.mixing.draw_mixing(jax.random.key(5), (4000, 8, 8, 1), 1.0, 1.0,
                                        cutmix_probability=0.2, per_example=True)
    assert (mixing.share == 1).mean() == pytest.approx(0.2, abs=0.03)


def test_jitter_draws_factors_on_both_sides_of_no_change(monkeypatch):
    monkeypatch.setattr(augment.jitter, "apply_jitter", lambda images, factors, *how: factors)
    factors = np.asarray(augment.color_jitter(
        jax.random.key(0), jnp.zeros((4000, 1, 1, 3), jnp.uint8), 0.4, 1.5, 0.0, 0.1))
    np.testing.assert_allclose(factors.min(axis=0), [0.6, 0, 1, -0.1], atol=0.01)
    np.testing.assert_allclose(factors.max(axis=0), [1.4, 2.5, 1, 0.1], atol=0.01)


def test_rand_augment_increasing_draws_both_signs_alike(drawn):
    codes, sizes = drawn(policies.rand_augment_increasing)
    for name in SIGNED:
        assert (sizes[codes == CODES[name]] > 0).mean() == pytest.approx(0.5, abs=0.15), name


def test_the_pipeline_passes_on_how_to_resize_and_what_to_erase_with():
    key, images, size = jax.random.key(4), jnp.asarray(IMAGES[:8]), (5, 4)
    statistics = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.3)}
    for area in (None, (0.3, 1.0)):
        out = augment.pipeline(key, images, size=size, interpolation="bicubic", resized_crop=area,
                               erase=1.0, erase_noise=True, **statistics)
        x = augment.resize(images, size, "bicubic") if area is None else (
            augment.random_resized_crop(jax.random.fold_in(key, 2), images, size, area,
                                        method="bicubic"))
        x = augment.normalize(x, *statistics.values())
        assert (out == augment.random_erasing(jax.random.fold_in(key, 5), x, 1.0,
                                              noise=True)).all()
