"""The models against torch and torchvision, with the same weights. See make_golden.py."""

import functools
import os
import pathlib

import golden_cases
import golden_values as values
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.data import augment
from cnnjax.models import create_model
from cnnjax.models.table import TABLE
from cnnjax.weights import load_weights, namings
from cnnjax.weights.naming import from_torch, shapes_in_torch, to_torch

DATA = pathlib.Path(os.environ.get("CNNJAX_TEST_DATA", "absent"))
LOGITS, TRAINING = (
    [pytest.param(*case, marks=[pytest.mark.slow] if case[2].slow else [], id=case[1])
     for case in golden_cases.cases(kind)] for kind in ("LOGITS", "TRAINING"))


def loaded(model, naming, size, fill):
    """Variables filled by the torch names of their arrays."""
    shapes = jax.eval_shape(model.init, jax.random.key(0),
                            jax.ShapeDtypeStruct((1, *size), jnp.float32))
    state = {key: values.seeded(key, shape, fill)
             for key, shape in shapes_in_torch(naming, shapes).items()}
    return from_torch(naming, state, shapes)


def test_every_architecture_has_a_training_step_and_a_comparison_that_is_not_slow():
    every = {entry.module for entry in TABLE.values()}
    logits, training = map(golden_cases.cases, ("LOGITS", "TRAINING"))
    assert {TABLE[case.model].module for _, _, case in training} == every
    assert {TABLE[case.model or name].module for _, name, case in logits + training
            if not case.slow} == every


@pytest.mark.parametrize(("family", "name", "case"), LOGITS)
def test_logits_equal_torch_at_usual_and_odd_sizes(family, name, case):
    model = create_model(case.model or name, **case.arguments)
    variables = loaded(model, namings.of(model, case.naming), case.sizes[0],
                       golden_cases.fill(family))
    golden = np.load(golden_cases.GOLDEN / f"{family}.npz")
    apply = jax.jit(functools.partial(model.apply, train=False))
    for size in case.sizes:
        where = f"{name} {size[0]}x{size[1]}"
        with jax.default_matmul_precision("highest"):
            logits = apply(variables, values.images(size))
        allowed = max(1e-4 * golden[where].std(), float(golden[f"{where} noise"]))
        assert np.abs(logits - golden[where]).max() <= allowed


@pytest.mark.parametrize(("family", "name", "case"), TRAINING)
def test_a_training_step_equals_torch_in_float64(family, name, case):
    model = create_model(case.model, dtype="float64", **case.arguments)
    naming = namings.of(model, case.naming)

    def loss(params, stats, images, labels):
        output, updated = model.apply({"params": params, "batch_stats": stats}, images, train=True,
                                      mutable=["batch_stats"])
        logits, auxiliary = output if isinstance(output, tuple) else (output, {})
        entropy = optax.softmax_cross_entropy_with_integer_labels
        total = entropy(logits, labels).mean() + case.aux_weight * sum(
            entropy(head, labels).mean() for head in auxiliary.values())
        return total, updated.get("batch_stats", {})

    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: a.astype(np.float64), loaded(
            model, naming, case.size, golden_cases.fill(family)))
        (value, stats), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
            variables["params"], variables.get("batch_stats", {}),
            values.images(case.size).astype(np.float64),
            values.labels(case.arguments["num_classes"]))
    golden = np.load(golden_cases.GOLDEN / f"{family}.npz")
    np.testing.assert_allclose(value, golden[f"{name} loss"], rtol=1e-6)
    ours = to_torch(naming, {"params": gradients, "batch_stats": stats})
    assert {f"{name} {key}" for key in ours} == {
        key for key in golden if key.startswith(f"{name} ")
        and not key.endswith((" loss", " noise")) and not key[len(name) + 1].isdigit()}
    size_of_all = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in ours.values()))
    for key, leaf in ours.items():
        expected, found = golden[f"{name} {key}"], values.fingerprint(key, leaf)
        # A bias before a norm has no gradient at all but rounding: relative to it, anything goes.
        allowed = 1e-6 * max(expected[0], 1e-6 * size_of_all)
        assert abs(found[0] - expected[0]) <= allowed, key
        assert np.sqrt(np.mean(np.square(found[1:] - expected[1:]))) <= allowed, key


def test_bn_statistics_of_a_float32_step_match_torch():
    """The running variance takes the unbiased estimate, the normalisation the biased one."""
    case = golden_cases.FAMILIES["simple_cnn"].TRAINING["simple_cnn"]
    model = create_model("simple_cnn", **case.arguments)
    naming = namings.of(model, case.naming)
    variables = loaded(model, naming, case.size, values.Fill())
    _, updated = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))(
        variables, values.images(case.size))
    golden = np.load(golden_cases.GOLDEN / "simple_cnn.npz")
    for key, leaf in to_torch(naming, updated).items():
        found = values.fingerprint(key, leaf.astype(np.float64))
        np.testing.assert_allclose(found, golden[f"simple_cnn {key}"], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not (DATA / "cifar10_resnet20").is_dir(),
                    reason="set CNNJAX_TEST_DATA to a folder with cifar10_resnet20/")
def test_published_resnet20_weights_classify_cifar10_as_published():
    folder = DATA / "cifar10_resnet20"
    model, variables, preprocess = load_weights("resnet20_cifar",
                                                folder / "resnet20-12fca82f.th")
    assert preprocess.size == (32, 32) and preprocess.crop == 1.0
    test = np.load(folder / "test_1017.npz")
    images = augment.normalize(test["images"], preprocess.mean, preprocess.std)
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    right = int((logits.argmax(-1) == test["labels"]).sum())
    assert right in (931, 932)
