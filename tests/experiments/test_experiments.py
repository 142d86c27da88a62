"""Every experiment file with every preset, and the trials of those that sweep: valid, and built as
far as shapes go.
"""

import ast
import functools
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from cnnjax import config as config_lib
from cnnjax import models, sweeps
from cnnjax.analysis.scaling import Scaled
from cnnjax.analysis.trials.layout import equal_costs, lay_out
from cnnjax.analysis.trials.rows import Row, groups
from cnnjax.jobs import course
from cnnjax.models import Scaling
from cnnjax.types import UserError
from cnnjax.validation import validate

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "experiments").glob("**/*.py"))
SWEEPS = [file for file in FILES if file.parent.name == "sweeps"]
# What each data set looks like, so that a preset is built without having it: examples, height,
# width, channels, classes.
KNOWN = {"digits": (1437, 8, 8, 1, 10), "mnist": (60_000, 28, 28, 1, 10),
         "fashion_mnist": (60_000, 28, 28, 1, 10), "cifar10": (50_000, 32, 32, 3, 10),
         "imagenet2012": (1_281_167, 224, 224, 3, 1000),
         "folder:hymenoptera_data": (244, 224, 224, 3, 2)}


def assert_built(config):
    """That the model takes the images of the config."""
    _, height, _, channels, classes = KNOWN[config.data.name]
    size = config.data.image_size or height
    module = models.create_model(config.model.name, num_classes=classes,
                                 **config_lib.model_overrides(config))
    assert output_shape(module, (2, size, size, channels)) == (2, classes)


@functools.cache
def output_shape(module, input_shape):
    """Of one trace for all presets that train a model on one size."""
    variables = models.variable_shapes(module, input_shape)
    images = jax.ShapeDtypeStruct(input_shape, "float32")
    return jax.eval_shape(module.apply, variables, images).shape


def load(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What a preset may be besides the names that a file lists.
COMPOSED = {"efficientnet": ("phi=-1.5", "phi=0.7", "imagenet,b4", "imagenet,phi=2.5")}
CASES = [pytest.param(file, preset, id=f"{file.stem}:{preset}") for file in FILES
         for preset in (*load(file).PRESETS, *COMPOSED.get(file.stem, ()))]


@pytest.mark.parametrize(("file", "preset"), CASES)
def test_every_preset_is_valid_and_its_model_takes_its_images(file, preset):
    config = load(file).get_config(preset)
    validate(config)
    assert_built(config)
    examples = KNOWN[config.data.name][0]
    total = config_lib.total_steps(config, examples)
    rate = course.make_learning_rate(config, examples, total)
    most = config.schedule.lr * max(
        1, config.train.batch_size / (config.schedule.lr_batch_size or config.train.batch_size))
    assert 0 < float(rate(total // 2)) <= most * (1 + 1e-6)
    course.make_schedule(config, examples, total)


# Counting the networks of these takes a while.
COUNTED = {("efficientnet_scaling", preset) for preset in ("fashion_mnist", "search", "imagenet")}
TRIALS = [pytest.param(file, preset, id=f"{file.stem}:{preset}",
                       marks=[pytest.mark.slow] if (file.stem, preset) in COUNTED else [])
          for file in SWEEPS for preset in load(file).PRESETS]


@pytest.mark.parametrize(("file", "preset"), TRIALS)
def test_every_trial_of_a_sweep_is_valid_and_the_last_one_takes_its_images(file, preset):
    module = load(file)
    trials = sweeps.next_wave(iter(module.sweep(preset)), None)
    assert len({trial.name for trial in trials}) == len(trials) > 1
    # A report makes a column of each, so all trials of one family have the same.
    assert all(trial.tags for trial in trials)
    for trial in trials:
        config = module.get_config(preset)
        for key, value in trial.overrides.items():
            section, _, name = key.rpartition(".")
            level = config[section] if section else config
            if section != "model":
                assert name in level
            level[name] = value
        validate(config)
    assert_built(config)


@pytest.mark.parametrize("file", SWEEPS, ids=lambda f: f.stem)
def test_a_sweep_without_a_preset_is_that_of_the_digits(file):
    module = load(file)
    assert next(iter(module.PRESETS)) == "digits"
    assert next(iter(module.sweep())) == next(iter(module.sweep("digits")))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_without_a_preset_an_experiment_runs_on_the_embedded_digits(file):
    assert load(file).get_config().data.name == "digits"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_the_docstring_gives_command_hardware_accuracy_and_time(file):
    text = ast.get_docstring(ast.parse(file.read_text()))
    assert f"python launch.py --config={file.relative_to(ROOT)}" in text
    assert "CPU cores" in text and "seed" in text
    assert "published" in text or "measured" in text.lower() or "not run" in text


def test_the_imagenet_recipe_of_resnet50_is_the_90_epoch_one_with_linear_scaling():
    config = load(ROOT / "experiments" / "resnet50.py").get_config("imagenet")
    total = config_lib.total_steps(config, 1_281_167)
    assert config.train.batch_size == 1024 and config.train.epochs == 90
    rate = course.make_learning_rate(config, 1_281_167, total)
    assert max(float(rate(s)) for s in range(6_000, 7_000, 50)) == pytest.approx(0.4, rel=1e-3)
    config.train.batch_size = 256
    rate = course.make_learning_rate(config, 1_281_167, total * 4)
    assert max(float(rate(s)) for s in range(24_000, 28_000, 50)) == pytest.approx(0.1, rel=1e-3)


def test_the_procedures_of_timm_resize_to_the_side_that_timm_does():
    get_config = load(ROOT / "experiments" / "resnet50.py").get_config
    for preset in ("a1", "a2", "a3"):  # floor(224 / 0.95) of its ResizeKeepRatio.
        assert round(224 / get_config(preset).data.crop) == 235


def test_on_cifar_10_the_stem_of_resnet50_keeps_the_32_pixels():
    config = load(ROOT / "experiments" / "resnet50.py").get_config("cifar10")
    model = models.create_model(config.model.name, **config_lib.model_overrides(config))
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), "float32")
    _, found = jax.eval_shape(lambda variables, x: model.apply(variables, x, capture=(
        "stem", "stage4")), models.variable_shapes(model, images.shape), images)
    assert (found["stem"].shape[1:3], found["stage4"].shape[1:3]) == ((32, 32), (4, 4))


def test_the_presets_of_efficientnet_scale_the_digits_or_imagenet():
    get_config = load(ROOT / "experiments" / "efficientnet.py").get_config
    b4, phi = get_config("imagenet,b4"), get_config("imagenet,phi=1")
    assert (b4.model.name, b4.data.image_size) == ("tf_efficientnet_b4", 380)
    assert (b4.model.width, b4.model.depth) == (1.4, 1.8)
    assert (phi.model.width, phi.model.depth, phi.data.image_size) == (1.1, 1.2, 258)
    # 32 pixels are left around the crop: CROP_PADDING of the paper's code.
    assert b4.data.crop == pytest.approx(0.9223, abs=5e-5)
    assert get_config("imagenet,b0").data.crop == 0.875
    digits, scaled = get_config(), get_config("phi=1")
    assert scaled.model.width == pytest.approx(1.1 * digits.model.width)
    assert scaled.data.image_size == round(1.15 * digits.data.image_size)
    # "Linearly from 0.2 for EfficientNet-B0 to 0.5 for B7", section 5.2 of the paper.
    assert b4.model.dropout_rate == 0.4
    rates = [get_config(f"imagenet,phi={phi}").model.dropout_rate for phi in (0, 3.5, 7, 9)]
    assert rates == [0.2, 0.35, 0.5, 0.5]


@pytest.mark.parametrize(("preset", "message"), [
    ("b8", "no preset 'b8'"), ("imagnet", "Did you mean 'imagenet'"), ("phi=two", "phi=two is no"),
    ("phi=nan", "finite"), ("imagenet,digits", "no preset 'digits'"), ("b0,imagenet", "no preset"),
    ("phi1.5", ":phi=1.5; and either after a data set and a comma, :imagenet,b4")])
def test_a_mistaken_preset_of_efficientnet_is_a_user_error(preset, message):
    with pytest.raises(UserError, match=message):
        load(ROOT / "experiments" / "efficientnet.py").get_config(preset)


def test_the_imagenet_recipe_of_efficientnet_decays_by_3_percent_every_2_4_epochs():
    config = load(ROOT / "experiments" / "efficientnet.py").get_config("imagenet")
    assert (config.augment.policy, config.train.ema_decay) == ("auto_augment", 0.9999)
    assert (config.model.drop_path_rate, config.model.bn_momentum) == (0.2, 0.99)
    total = config_lib.total_steps(config, 1_281_167)
    rate = course.make_learning_rate(config, 1_281_167, total)
    steps = 1_281_167 / 4096
    for epochs in (6, 100, 349):
        assert float(rate(round(epochs * steps))) == pytest.approx(
            0.256 * 0.97 ** (epochs // 2.4), rel=1e-4)


def test_a_scaling_sweep_of_other_data_counts_the_networks_that_will_train(tmp_path):
    module = load(ROOT / "experiments" / "sweeps" / "efficientnet_scaling.py")
    own, config = module.base_network("digits"), module.get_config("digits")
    images = np.zeros((8, 12, 12, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=[0, 1, 2, 0] * 2)
    config.data.name, config.data.image_size = f"npz:{tmp_path / 'a.npz'}", 0
    base = module.base_network("digits", config)
    assert (base.pixels, base.channels, base.num_classes) == (12, 3, 3)
    # Kernels of 3x3 to 16 maps from two colours more; 40 weights and a bias of 7 classes fewer.
    assert base.count()[0] == own.count()[0] + 2 * 9 * 16 - 7 * 41
    trial = next(iter(module.sweep("digits", config)))
    assert trial.tags["params"] == base.count()[0]
    assert trial.overrides["data.image_size"] == 12


def test_table_7_is_compared_at_one_cost_with_the_papers_margin_around_the_crop(monkeypatch):
    module = load(ROOT / "experiments" / "sweeps" / "efficientnet_scaling.py")
    monkeypatch.setattr(module, "scale", lambda base, scaling, family: Scaled(
        family, scaling, None, scaling.pixels(base.pixels), 1, 1, 1.0))
    base, *families = module.sweep("imagenet")
    assert (base.name, base.tags["cost_factor"], base.overrides["data.crop"]) == ("base", 1, 0.875)
    crops = {trial.name: trial.overrides["data.crop"] for trial in families}
    # CROP_PADDING of the paper's code is 32: 224 of 256 pixels, 448 of 480, 291 of 323.
    assert crops == {"depth": 0.875, "width": 0.875, "resolution": pytest.approx(448 / 480),
                     "compound": pytest.approx(291 / 323)}
    rows = [Row(trial.name, 0, "done", trial.tags, multiply_adds=1, top1=0.5)
            for trial in (base, *families)]
    trials = groups(rows)
    assert [[t.name for t in found] for found in equal_costs(trials, lay_out(trials))] == [
        ["depth", "width", "resolution", "compound"]]
    config = module.get_config("imagenet")
    for key, value, published in (("seed", 1, 77.3), ("model.name", "resnet50", None)):
        config.update_from_flattened_dict({key: value})
        base = next(module.sweep("imagenet", config))
        assert base.tags.get("published_top1") == published  # It is of B0.


def result(module, trial, top1, seed=0):
    return sweeps.Result(trial, seed, ROOT, {}, {}, {"status": "done", "top1": top1})


def test_the_search_compares_the_families_with_the_constants_that_it_found(monkeypatch):
    """Those of the best mean over seeds among the networks that cost what they should."""
    module = load(ROOT / "experiments" / "sweeps" / "efficientnet_scaling.py")
    seen = []

    def equal_cost(base, factor, bases):
        seen.append(tuple(bases))
        return [Scaled(family, Scaling(1.0, 1.0, 1.0), phi, 14, 1, 1, 1.0)
                for family, phi in (("depth", None), ("compound", 1.0))]

    def trial(name, alpha, real_factor):
        return sweeps.Trial(name, {}, {"alpha": alpha, "beta": 1.0, "gamma": 1.0,
                                       "real_factor": real_factor})

    grid = [trial("a", 1.9, 2.0), trial("b", 2.0, 2.1), trial("costly", 2.1, 3.0)]
    monkeypatch.setattr(module, "_grid", lambda base: grid)
    monkeypatch.setattr(module, "equal_cost", equal_cost)
    sweep = module.sweep("search")
    assert sweeps.next_wave(sweep, None) == grid
    results = [result(module, t, top1, seed) for t, top1s in zip(
        grid, ((0.9, 0.7), (0.8, 0.85), (0.95, 0.95)), strict=True)
        for seed, top1 in enumerate(top1s)]
    base, *families = sweeps.next_wave(sweep, results)
    assert base.name == "base" and seen == [(2.0, 1.0, 1.0)] * 2
    # Of the search's report, too, where the chosen one need not be the most accurate of all.
    assert [t.name for t in families if "alpha" in t.tags] == ["compound_2x", "compound_4x"]
    assert [families[1].tags[key] for key in ("alpha", "beta", "gamma")] == [2.0, 1.0, 1.0]
    with pytest.raises(UserError, match="No candidate of the search"):
        module.best([])
