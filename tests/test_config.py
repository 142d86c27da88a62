"""Durations, overrides and validation."""

import re

import pytest
from ml_collections import ConfigDict

from cnnjax import config as config_lib
from cnnjax import ops
from cnnjax.data.augment import make_policy
from cnnjax.data.feed import is_resident, make_stream
from cnnjax.data.host import HostTransform
from cnnjax.defaults import sections
from cnnjax.train.losses import loss_of
from cnnjax.train.optimizer import make_optimizer
from cnnjax.train.schedule import make_schedule
from cnnjax.train.views import views_of
from cnnjax.types import UserError
from cnnjax.validation import validate


def valid() -> ConfigDict:
    config = config_lib.default()
    config.model.name = "lenet5"
    config.train.epochs = 2.0
    return config


@pytest.mark.parametrize(("key", "value", "steps"), [
    ("steps", 7, 7), ("epochs", 3.0, 30), ("epochs", 0.25, 3), ("examples", 1_001, 11),
    ("epochs", 2.9 + 0.1, 30), ("epochs", 1e-9, 1)])
def test_every_unit_of_the_run_resolves_to_steps_and_no_epoch_is_cut_short(key, value, steps):
    config = config_lib.default()
    config.train[key] = value
    config.train.batch_size = 100
    assert config_lib.total_steps(config, examples=1_000) == steps


def test_a_run_of_two_phases_is_no_longer_than_its_count_of_steps():
    """Of 31 bits, in which the step of the state is counted."""
    config = config_lib.default()
    config.head.steps, config.train.steps = 1_000_000_000, 1_000_000_000
    assert config_lib.total_steps(config, examples=1_000) == 2_000_000_000
    config.train.steps = 2_000_000_000
    with pytest.raises(UserError, match=r"3e\+09 steps is too long.*--config.train.epochs=N"):
        config_lib.total_steps(config, examples=1_000)


def test_percent_is_of_the_whole_run():
    config = valid()
    config.schedule.warmup_percent = 5.0
    assert config_lib.in_steps(config.schedule, "warmup", batch_size=10, examples=100,
                               total=200) == pytest.approx(10)


def test_a_duration_of_0_is_set_all_the_same():
    config = valid()
    config.schedule.warmup_steps = 0
    length = dict(batch_size=10, examples=100)
    assert config_lib.in_steps(config.schedule, "warmup", **length) == 0
    config.schedule.warmup_epochs = 1.0
    with pytest.raises(UserError, match="Two durations"):
        config_lib.in_steps(config.schedule, "warmup", **length)


def test_a_tuple_of_durations_resolves_element_by_element():
    config = valid()
    config.schedule.drop_epochs = (30, 60)
    assert config_lib.in_steps(config.schedule, "drop", batch_size=10, examples=100,
                               total=1) == (300, 600)


def test_a_run_without_length_says_what_to_set():
    with pytest.raises(UserError, match=r"--config\.train\.epochs"):
        config_lib.total_steps(config_lib.default(), examples=10)


def test_a_check_makes_the_defaults_once_and_not_for_every_key(monkeypatch):
    config, made = valid(), []
    monkeypatch.setattr(config_lib, "sections", lambda: made.append(None) or sections())
    for _ in range(5):  # As a sweep checks its trials.
        validate(config)
    assert len(made) <= 6


def test_two_durations_at_once_are_an_error_that_names_both():
    config = valid()
    config.train.steps = 5
    with pytest.raises(UserError, match=r"train\.steps=5 and train\.epochs=2\.0"):
        validate(config)


def test_a_unit_on_the_command_line_replaces_the_files():
    config = valid()
    config.train.steps = 5
    config_lib.let_overrides_replace_units(config, ["train.steps"])
    assert config.train.epochs is None and config.train.steps == 5
    config.log.every_steps = 3
    config_lib.let_overrides_replace_units(config, ["log.every_steps"])
    assert config.log.every_percent is None and config.eval.every_epochs == 1.0


def test_two_units_on_the_command_line_stay_an_error():
    config = valid()
    config.train.steps = 5
    config_lib.let_overrides_replace_units(config, ["train.steps", "train.epochs"])
    with pytest.raises(UserError, match="Two durations"):
        validate(config)


def test_the_default_config_with_a_model_is_valid():
    validate(valid())


def test_heads_and_auxiliary_heads_are_trained_as_is_usual_by_default():
    config = config_lib.default()
    assert (config.head.optimizer, config.head.lr) == ("adam", 1e-3)
    assert config.train.aux_weight == 0.3  # GoogLeNet's, arXiv 1409.4842, section 5.


@pytest.mark.parametrize(("key", "value", "message"), [
    ("model.name", "resnet51", "resnet5"),
    ("model.name", "", "model.name is empty"),
    ("model.widths", (1, 2), "widths"),
    ("model.droput_rate", 0.1, "no argument 'droput_rate'. Did you mean 'dropout_rate'"),
    ("model.droput_rate", None, "no argument 'droput_rate'. Did you mean 'dropout_rate'"),
    ("train.bach_size", 3, "batch_size"),
    ("batch_size", 3, "train.batch_size"),
    ("optimizer.name", "adamm", "'adam'"),
    ("optimizer.name", "SGD", "Did you mean 'sgd'"),
    ("model.name", "RESNET18", "Did you mean 'resnet18'"),
    ("precision", "float16", "float32"),
    ("train.batch_size", 0, "between"),
    ("train.label_smoothing", -0.1, "between"),
    ("schedule.lr", float("nan"), "finite"),
    ("schedule.lr", float("inf"), "finite"),
    ("schedule.warmup_steps", -1, "duration"),
    ("schedule.drop_every_epochs", -2.4, "schedule.drop_every_epochs is -2.4; a duration"),
    ("schedule.name", "exponental", "'exponential'"),
    ("data.mean", "abc", "tuple"),
    ("data.name", 3, "str"),
    ("augment.flip", 1, "bool"),
    ("seed", True, "int"),
    ("train.progressive", ((10, 8), (50, 12)), "in order and the first at 0"),
    ("train.progressive", ((0, 8), (50, 12), (50, 16)), "in order and the first at 0"),
])
def test_a_wrong_config_is_one_message_that_names_the_key_and_the_fix(key, value, message):
    config = valid()
    section, _, name = key.rpartition(".")
    with (config[section] if section else config).ignore_type():
        (config[section] if section else config)[name] = value
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        validate(config)


def listed(function, *arguments, **keywords):
    """The choices that are named by the message of a call with a wrong one."""
    with pytest.raises(UserError) as error:
        function(*arguments, **keywords)
    text = re.search(r"(?:one of|there are) ([\w, ']+)\.", str(error.value), re.IGNORECASE)[1]
    return re.findall(r"\w+", text.replace(" and ", ", "))


def optimizer(name):
    return make_optimizer(name, None, {}, decay=())


def schedule(name):
    return make_schedule(name, lr=1.0, total_steps=1)


@pytest.mark.parametrize(("key", "call", "but"), [
    ("optimizer.name", optimizer, ()),
    ("head.optimizer", optimizer, ()),
    ("schedule.name", schedule, ()),
    ("head.schedule", schedule, ("step", "exponential", "range_test")),  # They need more keys.
    ("augment.policy", make_policy, ("none",)),
    ("data.interpolation", lambda name: HostTransform((8, 8), interpolation=name), ()),
    ("data.placement", lambda name: is_resident(None, name, None), ()),
    ("data.on_error", lambda name: make_stream(None, (8, 8), 1.0, None, "bilinear", 0, 0, name, 0),
     ()),
    ("train.loss", lambda name: loss_of(name, None, None, 0.0, None), ()),
    ("eval.tta", lambda name: views_of(None, name), ()),
    ("ops", ops.using, ("fast",)),  # It rounds more in evaluation too.
])
def test_the_choices_of_a_config_are_those_of_the_code(key, call, but):
    config = valid()
    section, _, name = key.rpartition(".")
    (config[section] if section else config)[name] = "?"
    assert set(listed(validate, config)) ^ set(listed(call, "?")) == set(but)


@pytest.mark.parametrize("choice", ["exact", "xla"])
def test_products_that_round_exclude_formulations_that_do_not(choice):
    config = valid()
    config.precision, config.ops = "bfloat16_products", choice
    with pytest.raises(UserError, match="set --config.ops=auto"):
        validate(config)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'digits'"):
        config_lib.apply_preset(valid(), "digit", {"digits": lambda c: None})


def test_the_first_preset_is_the_default():
    seen = []
    config_lib.apply_preset(valid(), None, {"a": lambda c: seen.append("a"),
                                            "b": lambda c: seen.append("b")})
    assert seen == ["a"]
