"""Augmentations against torchvision 0.28 and timm 1.0.31 on fixed draws (make_golden.py)."""

import contextlib
import functools
from pathlib import Path
from unittest import mock

import augment_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.data.augment import boxes, jitter, mixing, operations, policies, together

GOLDEN = np.load(Path(__file__).parent / "golden" / "augment.npz")


def check(ours, theirs, different=0.025, inside=False):
    """At most one level apart, and that in at most a share of the values."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.dtype == theirs.dtype == np.uint8 and ours.shape == theirs.shape
    apart = np.abs(ours.astype(int) - theirs)
    assert apart.max() <= 1
    if inside:  # A blend of a border with itself is whole, and may be cut to the level below.
        apart = apart[1:-1, 1:-1]
    assert (apart > 0).mean() <= different, f"{(apart > 0).mean():.2%} of the values differ"


@contextlib.contextmanager
def form(name):
    """The form for CPUs, that for accelerators, or that with kernels, which are interpreted."""
    with contextlib.ExitStack() as stack:
        platform = "cpu" if name == "cpu" else "gpu"
        stack.enter_context(mock.patch.object(jax, "default_backend", lambda: platform))
        if name == "kernels":
            stack.enter_context(mock.patch.object(
                together, "either",
                lambda ours, plainly, *arrays: functools.partial(ours, interpret=True)(*arrays)))
        yield


FORMS = ["cpu", "gpu", "kernels"]


@pytest.fixture(scope="module", params=FORMS)
def apply(request):
    """(image, operation, magnitude) -> the image after it, compiled once for all operations.

    By each form.
    """
    # A function of its own for each form, or the second would be the first one's cached trace.
    jitted = jax.jit(functools.partial(operations.apply_operations),
                     static_argnames=("method", "fill"))

    def apply(image, name, size, **how):
        codes = jnp.full((1, 1), operations.CODES[name])
        with form(request.param):
            return jitted(image[None], codes, jnp.full((1, 1), size, jnp.float32), **how)[0]

    return apply


@pytest.mark.parametrize("case", cases.OPERATIONS, ids=str)
def test_an_operation_is_that_of_torchvision(apply, case):
    check(apply(cases.image(), *case), GOLDEN["operations"][cases.OPERATIONS.index(case)],
          inside=case[0] == "Sharpness")


@pytest.mark.parametrize("case", cases.RESAMPLED, ids=str)
def test_bilinear_resampling_and_fill_are_those_of_torchvision(apply, case):
    i = cases.RESAMPLED.index(case)
    check(apply(cases.image(), *case, method="bilinear"), GOLDEN["bilinear"][i])
    check(apply(cases.image(), *case, fill=cases.FILL), GOLDEN["filled"][i])
    both = np.asarray(apply(cases.image(), *case, fill=cases.FILL, method="bilinear")).astype(int)
    outside = (GOLDEN["filled"][i] == cases.FILL).all(axis=-1)
    assert np.abs(both - cases.FILL)[outside].mean() < 20


@pytest.mark.parametrize("case", cases.GREY, ids=str)
def test_an_operation_on_a_grey_image_is_that_of_torchvision(apply, case):
    check(apply(cases.image("grey"), *case), GOLDEN["grey"][cases.GREY.index(case)],
          inside=case[0] == "Sharpness")


@pytest.mark.parametrize("case", cases.FLAT, ids=str)
def test_an_operation_on_channels_of_one_and_two_levels_is_that_of_torchvision(apply, case):
    check(apply(cases.flat(), *case), GOLDEN["flat"][cases.FLAT.index(case)])


def test_solarize_add_is_that_of_timm(apply):
    check(apply(cases.image(), "SolarizeAdd", 99.0), GOLDEN["solarize_add 99"], different=0)


@pytest.mark.parametrize("accelerated", [pytest.param(FORMS[1], marks=pytest.mark.slow), FORMS[2]])
def test_images_of_a_batch_have_their_own_sequences_on_an_accelerator_too(accelerated):
    drawn = [("Equalize", 0.0), ("Rotate", 9.0), ("Sharpness", 0.8931), ("Color", 0.5371)]
    codes, sizes = (jnp.array(column) for column in zip(
        *((operations.CODES[name], size) for name, size in drawn), strict=True))
    codes, sizes = (jnp.stack([a, jnp.roll(a, 1)], axis=1) for a in (codes, sizes))
    images = np.stack([np.roll(cases.image(), 3 * i, axis=0) for i in range(len(drawn))])
    on_cpu = operations.apply_operations(images, codes, sizes)
    with form(accelerated):
        found = operations.apply_operations(images, codes, sizes)
    apart = np.abs(np.asarray(on_cpu).astype(int) - np.asarray(found))
    # A level that the first operation rounds the other way can be one of many in the second.
    assert (apart > 0).mean() < 0.03 and apart.max() < 20


@pytest.mark.parametrize(("channels", "method"), [(3, "bilinear"), (1, "nearest")])
def test_the_kernels_are_lowered_for_cuda(channels, method, lowered_for_cuda, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def augmented(images, codes, sizes, factors, order):
        images = jitter.apply_jitter(images, factors, order, [True] * 4)
        return operations.apply_operations(images, codes, sizes, method=method)

    rows = jax.ShapeDtypeStruct((4, 2), jnp.int32)
    text = lowered_for_cuda(augmented, jax.ShapeDtypeStruct((4, 40, 33, channels), jnp.uint8),
                            rows, jax.ShapeDtypeStruct((4, 2), jnp.float32),
                            jax.ShapeDtypeStruct((4, 4), jnp.float32),
                            jax.ShapeDtypeStruct((4, 4), jnp.int32))
    for name in ("augment_survey", "augment_apply", "augment_grey_before_contrast",
                 "augment_jitter"):
        assert name in text


def test_the_kernels_are_traced_for_devices_that_share_a_batch(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    mesh = jax.sharding.AbstractMesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    images = jax.ShapeDtypeStruct((4, 10, 9, 3), jnp.uint8)
    changed = jax.eval_shape(
        lambda images, codes, sizes, factors: operations.apply_operations(
            jitter.apply_jitter(images, factors, codes, [True] * 4, mesh), codes, sizes, mesh=mesh),
        images, jax.ShapeDtypeStruct((4, 4), jnp.int32), shape((4, 4)), shape((4, 4)))
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)


@pytest.mark.parametrize("key", ["rand", "trivial"])
def test_magnitudes_are_those_of_torchvision(key):
    table = (policies.rand_augment_table(31, cases.SIZE) if key == "rand"
             else policies.trivial_augment_table(31))
    names = list(GOLDEN[f"{key} names"])
    assert names == list(operations.OPERATIONS[:len(names)])
    apart = np.abs(table[:len(names)] - GOLDEN[key])
    # Half of 32 pixels is 15.999999 in torch's float32, and is cut to 15 there.
    assert (apart > 1e-4).sum() == (2 if key == "trivial" else 0) and apart.max() <= 1


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_auto_augment_is_that_of_torchvision(policy):
    codes, sizes, probabilities = policies.auto_augment_table(policy, cases.SIZE)
    names = [operations.OPERATIONS[code] for code in codes.ravel()]
    assert names == list(GOLDEN[f"auto {policy} names"])
    theirs = GOLDEN[f"auto {policy}"]
    np.testing.assert_allclose(probabilities.ravel(), theirs[:, 0], rtol=1e-6)
    np.testing.assert_allclose(sizes.ravel(), theirs[:, 1], rtol=1e-5, atol=1e-5)


def test_magnitudes_of_rand_augment_increasing_are_those_of_timm():
    levels = jnp.linspace(0, 10, 41)[:, None]
    for name, theirs in zip(GOLDEN["increasing names"], GOLDEN["increasing"], strict=True):
        name = name.removesuffix("Increasing").removesuffix("Rel")
        codes = jnp.full((41, 1), operations.CODES[name])
        ours = np.asarray(policies.increasing_magnitudes(
            codes, levels, jnp.ones((41, 1)), cases.SIZE))[:, 0]
        if "Translate" in name:  # A share of the side there.
            theirs = theirs * cases.SIZE[0 if name.endswith("Y") else 1]
        elif name in ("Brightness", "Color", "Contrast", "Sharpness"):
            theirs = theirs - 1
        # Whole numbers are cut from products that may round either way.
        whole = name in ("Posterize", "Solarize", "SolarizeAdd")
        off = np.abs(ours - theirs)
        assert (off > 1e-4).sum() <= (2 if whole else 0) and off.max() <= 1.001, name


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("i", range(len(cases.JITTER)))
def test_color_jitter_is_that_of_torchvision(i, name):
    factors, order = cases.JITTER[i]
    with form(name):
        ours = jitter.apply_jitter(cases.image()[None], jnp.array([factors]), jnp.array([order]),
                                   [True] * 4)[0]
    # A level that one change rounds the other way becomes two in the next.
    apart = np.abs(np.asarray(ours).astype(int) - GOLDEN["jitter"][i])
    assert apart.max() <= 2 and (apart > 0).mean() < 0.02


@pytest.mark.parametrize("accelerated", [pytest.param(FORMS[1], marks=pytest.mark.slow), FORMS[2]])
@pytest.mark.parametrize(("kind", "wanted"), [("grey", [True] * 4), ("photo", [True, False] * 2),
                                              ("photo", [False, True, True, False])])
def test_jitter_on_an_accelerator_makes_the_wanted_changes_alone(kind, wanted, accelerated):
    images = np.stack([cases.image(kind)] * 4)
    drawn = [jnp.array(column) for column in zip(*cases.JITTER, strict=True)]
    on_cpu = np.asarray(jitter.apply_jitter(images, *drawn, wanted)).astype(int)
    with form(accelerated):
        apart = np.abs(on_cpu - np.asarray(jitter.apply_jitter(images, *drawn, wanted)))
    assert apart.max() <= 2 and (apart > 0).mean() < 0.02


@pytest.mark.parametrize(("platform", "different"), [("cpu", 0.025), ("gpu", 0.05)])
@pytest.mark.parametrize("i", range(len(cases.CROPS)))
def test_a_resized_crop_is_that_of_torchvision(monkeypatch, i, platform, different):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    box, size, method = cases.CROPS[i]
    check(boxes.resized_crop(cases.image()[None], jnp.array([box]), size, method)[0],
          GOLDEN[f"crop {i}"], different)


@pytest.mark.parametrize("size", cases.BOX_SIZES)
def test_boxes_are_those_of_torchvision(size):
    draws = cases.draws(24)
    crop = boxes.crop_boxes(draws, size, (0.08, 1.0), (3 / 4, 4 / 3))
    np.testing.assert_array_equal(crop, GOLDEN[f"crop boxes {size}"])
    erase = np.asarray(boxes.erase_boxes(draws, size, **cases.ERASE))
    theirs = GOLDEN[f"erase boxes {size}"].copy()
    theirs[(theirs[:, 2:] == size).all(axis=1)] = 0  # The whole image means that none fitted.
    np.testing.assert_array_equal(erase, theirs)


@pytest.mark.parametrize("i", range(len(cases.MIXES)))
def test_mixing_is_that_of_timm(i):
    kind, weight, centre = cases.MIXES[i]
    images, labels = cases.batch()
    weights = jnp.full(4, weight)
    if kind == "mixup":
        how = mixing.Mixing(weights, jnp.zeros((4, 4), jnp.int32), weights)
    else:
        cut = mixing.cutmix_boxes(weights, jnp.tile(jnp.array([centre]), (4, 1)), (8, 7))
        how = mixing.Mixing(jnp.ones(4), cut, 1 - cut[:, 2] * cut[:, 3] / 56)
    np.testing.assert_allclose(mixing.apply_mixing(images, how)[:2], GOLDEN[f"mix {i}"],
                               atol=1e-6)
    own = jax.nn.one_hot(labels, 5)
    targets = how.weight[:, None] * own + (1 - how.weight[:, None]) * own[::-1]
    # timm's label smoothing of 0.1 is the loss's here.
    np.testing.assert_allclose(0.9 * targets + 0.1 / 5, GOLDEN[f"targets {i}"], atol=1e-6)
