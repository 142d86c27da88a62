"""Functions are recognised by what they are made of if, and only if, a trace would be the same."""

import dataclasses
import functools
import importlib
import importlib.util
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cnnjax
from cnnjax import config as config_lib
from cnnjax import ops
from cnnjax.jobs import ahead, made_of
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.evaluation import make_inputs

X = np.zeros(3, np.float32)


@pytest.fixture(autouse=True)
def in_a_library(in_a_program, monkeypatch):
    """What is here passes for a library's."""
    monkeypatch.setattr(made_of, "_INSTALLED", (*made_of._INSTALLED, os.path.dirname(__file__)))


@dataclasses.dataclass(frozen=True)
class Scale:
    factor: object

    def times(self, x):
        return self.factor * x


def product(factor, x):
    return factor * x


def times(factor):
    return lambda x: factor * x


def default_of(factor):
    def function(x, factor=factor):
        return factor * x

    return function


def nested(factor):
    def outer(x):
        return (lambda y: y * 3.0)(x) if factor else (lambda y: y * 4.0)(x)

    return outer


MAKERS = {
    "closure": times,
    "default": default_of,
    "partial": lambda factor: functools.partial(product, factor),
    "keyword": lambda factor: functools.partial(default_of(0.0), factor=factor),
    "method": lambda factor: Scale(factor).times,
    "array": lambda factor: times(np.full(3, factor, np.float32)),
    "array of jax": lambda factor: times(jnp.full(3, factor)),
    "dict": lambda factor: times({"a": [factor, (factor,)]}),
    "schedule": lambda factor: optax.sgd(optax.cosine_decay_schedule(factor, 9)).update,
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_a_function_is_bound_to_decides(name):
    make = MAKERS[name]
    digest = made_of.digest(make(2.0), (X,))
    assert digest is not None
    assert digest == made_of.digest(make(2.0), (X,))
    assert digest != made_of.digest(make(3.0), (X,))


def test_functions_on_one_line_differ():
    pairs = [(lambda x: x + 1.0, lambda x: x + 2.0), (lambda x: jnp.sin(x), lambda x: jnp.cos(x)),
             (lambda x: (lambda y: y + 1.0)(x), lambda x: (lambda y: y + 2.0)(x))]
    for one, other in pairs:
        assert made_of.digest(one, (X,)) != made_of.digest(other, (X,))
    assert made_of.digest(nested(True), (X,)) != made_of.digest(nested(False), (X,))


def test_shapes_types_places_and_structures_decide():
    double = times(2.0)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    arguments = [(X,), (X, X), ({"x": X},), (X[:2],), (X.astype(np.int32),), ([X],),
                 (jax.ShapeDtypeStruct((3,), np.float32, sharding=device),)]
    digests = [made_of.digest(double, a) for a in arguments]
    assert None not in digests and len(set(digests)) == len(arguments)
    assert digests[0] == made_of.digest(jax.jit(double), (np.ones(3, np.float32),))


def test_how_operations_are_computed_decides():
    double = times(2.0)
    digests = {made_of.digest(double, (X,))}
    for context in (ops.using("xla"), ops.training(), ops.products("bfloat16"),
                    ops.without("winograd")):
        with context:
            digests.add(made_of.digest(double, (X,)))
    assert len(digests) == 5


def test_nothing_is_claimed_of_other_objects():
    class Local:
        pass

    class Any:
        def __getattr__(self, name):
            return self

    for value in (Local(), Any(), object(), iter([]), np.random.default_rng(0),
                  jax.jit(times(2.0))):
        assert made_of.digest(times(value), (X,)) is None


def test_nothing_is_claimed_where_the_program_has_no_file(monkeypatch):
    assert made_of.digest(times(2.0), (X,))
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    assert made_of.digest(times(2.0), (X,)) is None


def test_a_class_of_a_module_without_a_file_is_not_known(monkeypatch):
    module = types.ModuleType("typed_in")
    exec("class Net:\n    def apply(self, x):\n        return x", module.__dict__)
    monkeypatch.setitem(sys.modules, "typed_in", module)
    assert made_of.digest(times(module.Net), (X,)) is None


OWN_CODE = """import dataclasses
import os

def twice(x):
    return 2 * x * float(os.environ.get("SCALE", "1"))

def made(factor):
    @dataclasses.dataclass(frozen=True)
    class Net:
        classes: int = 10

        def apply(self, x):
            return factor * x

    return Net()
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A module of the user's own."""
    (tmp_path / "own_code.py").write_text(OWN_CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "own_code", None)  # So that it goes in the end.
    del sys.modules["own_code"]
    return importlib.import_module("own_code")


def test_nothing_is_claimed_of_the_users_own_code(own_code):
    for function in (own_code.twice, times(own_code.twice), own_code.made(2.0).apply,
                     times(own_code.made(2.0)), times(type(own_code.made(2.0)))):
        assert made_of.digest(function, (X,)) is None
    spec = importlib.util.spec_from_file_location("not_registered", own_code.__file__)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    assert made_of.digest(module.twice, (X,)) is None
    exec("def run(x):\n    return x", namespace := {})
    assert made_of.digest(namespace["run"], (X,)) is None


def test_nothing_is_claimed_where_a_library_has_been_given_the_users_own_code(
        own_code, monkeypatch):
    for place, name, value in (
            (ops, "relu", own_code.twice), (nn, "relu", jax.jit(own_code.twice)),
            (nn, "relu", functools.wraps(nn.relu)(own_code.made)),
            (nn.Conv, "__call__", own_code.twice)):
        assert made_of.digest(times(2.0), (X,))
        with monkeypatch.context() as patch:
            patch.setattr(place, name, value)
            assert made_of.digest(times(2.0), (X,)) is None


def test_the_users_own_files_decide(monkeypatch, request):
    before = made_of.digest(times(2.0), (X,))
    request.getfixturevalue("own_code")
    assert made_of.digest(times(2.0), (X,)) != before  # It may have changed any number.


def test_an_environment_variable_decides_that_a_model_or_the_users_own_file_names(
        tmp_path, monkeypatch, request):
    def with_scale(scale):
        monkeypatch.setenv("SCALE", scale)
        return made_of.digest(times(2.0), (X,))

    assert with_scale("1") == with_scale("2") is not None
    model = tmp_path / "models" / "net.py"
    model.parent.mkdir()
    model.write_text("SCALE = os.environ.get('SCALE', '1')")
    with monkeypatch.context() as patch:
        patch.setattr(made_of, "_TRACED", [model.parent])
        assert with_scale("1") != with_scale("2")
    request.getfixturevalue("own_code")
    assert with_scale("1") != with_scale("2")


def test_code_that_changed_is_seen(own_code, monkeypatch):
    monkeypatch.setattr(cnnjax, "IMPORTED_NS", time.time_ns() + 10**9)
    file, code = own_code.__file__, made_of.code()
    assert code[file] and any(path.endswith("ops/conv.py") for path in code)
    assert made_of.unchanged(code) and not made_of.unchanged(None)
    Path(file).write_text(OWN_CODE.replace("2 *", "3 *"))
    os.utime(file, ns=(0, code[file][1] + 1))
    assert not made_of.unchanged(code)
    os.unlink(file)
    assert not made_of.unchanged(code)
    assert made_of.code() is None  # A module without a file.


def test_code_that_changed_after_it_was_imported_is_not_taken_for_what_was(own_code, monkeypatch):
    file = own_code.__file__
    monkeypatch.setattr(cnnjax, "IMPORTED_NS", time.time_ns() + 10**9)
    code = made_of.code()
    # An older file of as many bytes is put there while the program compiles.
    Path(file).write_text(OWN_CODE.replace("2 *", "3 *"))
    os.utime(file, ns=(0, 0))
    later = made_of.code()
    monkeypatch.setattr(cnnjax, "IMPORTED_NS", os.stat(file).st_ctime_ns)
    assert made_of.code() is None
    assert not made_of.unchanged(code) and not made_of.unchanged(later)


BASE = {"model.name": "simple_cnn", "model.widths": (4, 8), "train.steps": 8, "train.batch_size": 8}
RECIPES = [
    {}, {"schedule.lr": 0.3}, {"schedule.name": "linear"}, {"schedule.warmup_steps": 3},
    {"train.steps": 9}, {"optimizer.name": "adamw"}, {"optimizer.name": "muon"},
    {"optimizer.name": "lars"}, {"optimizer.name": "rmsprop"}, {"optimizer.momentum": 0.8},
    {"optimizer.weight_decay": 0.1}, {"optimizer.weight_decay": 0.1, "optimizer.decay": (".*",)},
    {"optimizer.clip_norm": 1.0}, {"optimizer.layer_decay": 0.7},
    {"optimizer.lr_multipliers": (("head/.*", 2.0),)}, {"train.ema_decay": 0.9},
    {"train.accumulate": 2}, {"train.ghost_batch_size": 4}, {"train.label_smoothing": 0.1},
    {"train.loss": "sigmoid"}, {"train.loss": "sigmoid", "train.target_threshold": 0.2},
    {"train.remat": ("conv1",)}, {"train.batch_size": 16}, {"augment.flip": True},
    {"augment.pad_crop": 2}, {"augment.policy": "rand_augment"},
    {"augment.policy": "rand_augment", "augment.magnitude": 3},
    {"augment.policy": "rand_augment", "augment.fill": "mean"}, {"augment.erase": 0.3},
    {"augment.erase": 0.3, "augment.erase_noise": True}, {"augment.jitter": (0.1,) * 4},
    {"augment.random_resized_crop": (0.3, 1.0)}, {"augment.mixup": 0.2}, {"augment.cutmix": 1.0},
    {"data.image_size": 24}, {"data.mean": (0.1,), "data.std": (0.2,)}, {"ops": "xla"},
    {"precision": "bfloat16"}, {"precision": "bfloat16_products"}, {"model.widths": (4, 9)},
    {"train.progressive": ((0, 16), (50, 24))},
    {"weights.path": "random", "train.trainable": ("head/.*",)},
    {"weights.path": "random", "train.trainable": ("conv2/.*", "norm2/.*", "head/.*"),
     "train.norm_statistics": "running"},
]


def step_of(recipe):
    """Returns the training step of a config and what it is called with."""
    config = config_lib.default()
    config.update_from_flattened_dict(BASE | recipe)
    experiment = experiment_lib.build(config)
    phase = experiment.phases[0]
    inputs = make_inputs(experiment, phase)
    return ahead.jitted_call(experiment, phase, inputs.fetch), (
        experiment.placed_state_at(1), inputs.constants, inputs.feed.batch_shapes(1))


def digest_of(recipe):
    try:
        return made_of.digest(*step_of(recipe))
    finally:
        ops.set_default("auto")
        ops.set_products("float32")


@pytest.mark.parametrize("part", range(3))
def test_a_training_step_is_known_and_no_two_texts_have_one_digest(part):
    texts = {}
    for recipe in [{}, *RECIPES[part::3]]:
        step, arguments = step_of(recipe)
        digest = digest_of(recipe)
        assert digest is not None, recipe
        with ops.using(recipe.get("ops", "auto")), ops.products(
                "bfloat16" if recipe.get("precision") == "bfloat16_products" else "float32"):
            text = step.lower(*arguments).as_text()
        assert texts.setdefault(digest, text) == text, recipe
    assert len(set(texts.values())) > len(texts) / 2  # Or it would compare little.


SCRIPT = """import sys
from cnnjax import config as config_lib
from cnnjax.jobs import ahead, made_of
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.evaluation import make_inputs

config = config_lib.default()
config.update_from_flattened_dict({
    "model.name": "resnet18", "model.width": 8, "data.image_size": 16, "train.steps": 8,
    "train.batch_size": 8, "seed": int(sys.argv[1]), "optimizer.name": "muon",
    "train.remat": ("stage1.*",), "optimizer.layer_decay": 0.7, "augment.mixup": 0.2,
    "augment.policy": "auto_augment", "train.ema_decay": 0.9, "weights.path": "random",
    "train.from_stage": "stage2"})
experiment = experiment_lib.build(config)
phase = experiment.phases[0]
inputs = make_inputs(experiment, phase)
print(made_of.digest(ahead.jitted_call(experiment, phase, inputs.fetch), (
    experiment.placed_state_at(1), inputs.constants, inputs.feed.batch_shapes(1))))
"""


def test_another_process_with_another_seed_comes_to_the_same(root, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    processes = [subprocess.Popen(
        [sys.executable, tmp_path / "script.py", str(seed)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(root), "PYTHONHASHSEED": str(seed)})
        for seed in (1, 2)]
    first, second = (process.communicate()[0] for process in processes)
    assert first == second and len(first.strip()) == 64
