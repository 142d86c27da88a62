"""The models against torch and torchvision, with the same weights. See make_golden.py."""

import functools
import os
import pathlib
import pickle

import golden_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch_names

from cnnjax import trees
from cnnjax.models import create_model

GOLDEN = pathlib.Path(__file__).parent / "golden"
DATA = pathlib.Path(os.environ.get("CNNJAX_TEST_DATA", "absent"))


def loaded(model, layout, size, tensor=cases.seeded):
    shapes = jax.eval_shape(model.init, jax.random.key(0),
                            jax.ShapeDtypeStruct((1, *size), jnp.float32))
    return torch_names.load(layout, shapes, tensor)


@pytest.mark.parametrize("name", cases.LOGITS)
def test_logits_equal_torch_at_usual_and_odd_sizes(name):
    arguments, layout, sizes = cases.LOGITS[name]
    model = create_model(name, **arguments)
    variables = loaded(model, layout, sizes[0])
    golden = np.load(GOLDEN / "logits.npz")
    apply = jax.jit(functools.partial(model.apply, train=False))
    for size in sizes:
        expected = golden[f"{name} {size[0]}x{size[1]}"]
        with jax.default_matmul_precision("highest"):
            logits = apply(variables, cases.images(size))
        assert np.abs(logits - expected).max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("name", cases.TRAINING)
def test_a_training_step_equals_torch_in_float64(name):
    model_name, arguments, layout, size = cases.TRAINING[name]
    model = create_model(model_name, dtype="float64", **arguments)

    def loss(params, stats, images, labels):
        logits, updated = model.apply({"params": params, "batch_stats": stats}, images, train=True,
                                      mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), updated["batch_stats"]

    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: a.astype(np.float64), loaded(model, layout, size))
        (value, stats), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
            variables["params"], variables["batch_stats"], cases.images(size).astype(np.float64),
            cases.labels(arguments["num_classes"]))
    golden = np.load(GOLDEN / "training.npz")
    np.testing.assert_allclose(value, golden[f"{name} loss"], rtol=1e-6)
    ours = trees.named_leaves({"params": gradients, "batch_stats": stats})
    assert len(ours) == len([key for key in golden if key.startswith(f"{name} ")]) - 1
    size_of_all = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in ours.values()))
    for path, leaf in ours.items():
        key = torch_names.torch_name(layout, path)
        expected = golden[f"{name} {key}"]
        found = cases.fingerprint(key, torch_names.to_torch(layout, path, np.asarray(leaf)))
        # A bias before a norm has no gradient at all but rounding: relative to it, anything goes.
        allowed = 1e-6 * max(expected[0], 1e-6 * size_of_all)
        assert abs(found[0] - expected[0]) <= allowed, path
        assert np.sqrt(np.mean(np.square(found[1:] - expected[1:]))) <= allowed, path


def test_bn_statistics_of_a_float32_step_match_torch():
    """The running variance takes the unbiased estimate, the normalisation the biased one."""
    _, arguments, layout, size = cases.TRAINING["simple_cnn"]
    model = create_model("simple_cnn", **arguments)
    _, updated = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))(
        loaded(model, layout, size), cases.images(size))
    golden = np.load(GOLDEN / "training.npz")
    for path, leaf in trees.named_leaves(updated).items():
        key = torch_names.torch_name(layout, path)
        found = cases.fingerprint(key, np.asarray(leaf, np.float64))
        np.testing.assert_allclose(found, golden[f"simple_cnn {key}"], rtol=1e-4, atol=1e-5)


class LegacyStateDict(pickle.Unpickler):
    """Reads the state dict of a torch file from before 1.6, executing nothing in it.

    Such a file is a row of pickles: a magic number, the protocol, the machine, the object, the
    storages' keys; then each storage as an int64 count and its raw little-endian values.
    """

    DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}

    def __init__(self, file):
        super().__init__(file)
        self.storages = {}

    def find_class(self, module, name):
        if name in self.DTYPES:
            return name
        if name == "OrderedDict":
            return dict
        if name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        if name in ("_rebuild_parameter",):
            return lambda data, *_: data
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a state dict")

    def persistent_load(self, identifier):
        _, kind, key, _, count, _ = identifier
        self.storages[key] = np.empty(count, self.DTYPES[kind])
        return self.storages[key]

    @classmethod
    def read(cls, path):
        with open(path, "rb") as file:
            for _ in range(3):
                cls(file).load()
            reader = cls(file)
            content = reader.load()
            for key in cls(file).load():
                count = int.from_bytes(file.read(8), "little")
                storage = reader.storages[key]
                storage[:] = np.frombuffer(file.read(count * storage.itemsize), storage.dtype)
        return {name: np.lib.stride_tricks.as_strided(
            storage[offset:], shape, [step * storage.itemsize for step in strides])
            for name, (storage, offset, shape, strides) in content["state_dict"].items()}


@pytest.mark.skipif(not (DATA / "cifar10_resnet20").is_dir(),
                    reason="set CNNJAX_TEST_DATA to a folder with cifar10_resnet20/")
def test_published_resnet20_weights_classify_cifar10_as_published():
    folder = DATA / "cifar10_resnet20"
    state = LegacyStateDict.read(folder / "resnet20-12fca82f.th")
    model = create_model("resnet20_cifar", num_classes=10)
    variables = loaded(model, "cifar", (32, 32, 3), lambda name, shape: state[f"module.{name}"])
    test = np.load(folder / "test_1017.npz")
    images = (test["images"] / np.float32(255) - np.float32([0.485, 0.456, 0.406])) / np.float32(
        [0.229, 0.224, 0.225])
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    right = int((logits.argmax(-1) == test["labels"]).sum())
    assert right in (931, 932)
