"""Configs changed at random: each is either run or refused in a sentence that names the key."""

import contextlib
import io
import re

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from cnnjax import config as config_lib
from cnnjax.command_line import main
from cnnjax.durations import UNITS
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs import overview
from cnnjax.types import UserError
from cnnjax.validation import _CHOICES, validate

DEFAULTS = config_lib.default()
KEYS = sorted(set(config_lib.flatten(DEFAULTS)) - {"sweep.executor"}) + [
    f"model.{name}" for name in ("widths", "hidden", "batch_norm", "dropout_rate", "dtype",
                                 "global_pool")]
NUMBERS = [0, 1, -1, 2, 3, 7, 10**4, 10**6, 2**31 - 1, 2**31, 10**12, 10**30, -2**63, 0.0, 0.5,
           -0.5, 1e-30, 1.5, 1e9, 1e38, 1e300, float("nan"), float("inf")]
TEXTS = ["", "x", "None", "auto", "-1", "0.5", "a" * 300, "(", ".*", "../..", "/", "folder:",
         "npz:", "folder:/nowhere", "wds:", "wds:{0..9}.tar", "wds:[", "records:", "imagenet:/",
         "best"]
TUPLES = [(), (1,), (0,), (-1,), (1, 2), (0.5, 0.5), (0.1, 0.2, 0.3), (0.1,) * 4, ("x",),
          (float("nan"),), (10**12,), (1e300, 1e300), ("(",), ((".*", 2.0),), (("(", 1.0),)]
# What only a file can hold.
OBJECTS = [None, {}, {"a": 1}, b"x", 1j, object(), [1], {1}, (None,)]


def value_of(key):
    """Half of the values are of the key's own type, or one of its choices."""
    section, _, name = key.rpartition(".")
    everything = st.sampled_from(NUMBERS + TEXTS + TUPLES + [True, False] + OBJECTS)
    kind = (DEFAULTS[section] if section else DEFAULTS).get_type(name) if (
        key in config_lib.flatten(DEFAULTS)) else object
    own = [v for v in NUMBERS + TEXTS + TUPLES + [True, False] if isinstance(
        v, (int, float) if kind is float else kind) and isinstance(v, bool) == (kind is bool)]
    return st.one_of(everything, st.sampled_from(_CHOICES.get(key) or own or [None]))


@st.composite
def mutations(draw):
    """One to three keys, some of them misspelt, with values."""
    found = {}
    for key in draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True)):
        value = draw(value_of(key))
        if draw(st.integers(0, 9)) == 0:
            place = draw(st.integers(0, len(key) - 1))
            key = key[:place] + draw(st.sampled_from(["", "x", "_"])) + key[place + 1:]
        found[key] = value
    return found


def tiny():
    config = config_lib.default()
    config.model.name, config.model.widths = "simple_cnn", (4,)
    config.train.steps, config.train.batch_size = 20, 16
    return config


def in_file(changes, then):
    """Returns the message that a file with these values gets, or None if it would run."""
    config = tiny()
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        if section and section not in config:
            continue
        # What ConfigDict itself refuses is the file's own line, which the message shows.
        with contextlib.suppress(TypeError, ValueError, KeyError, AttributeError):
            target = config[section] if section else config
            with target.ignore_type():
                target[name] = value
    try:
        validate(config)
        then(experiment_lib.build(config))
    except UserError as error:
        return str(error)
    return None


def on_command_line(changes, then):
    """Returns the message that a command with these values gets, or None if it would run."""
    words = [f"--config.{key}={value}" for key, value in changes.items()]
    tiny_run = ["--config=experiments/simple_cnn.py", "--config.model.widths=(4,)",
                "--config.train.steps=20", "--config.train.batch_size=16", "--dry_run"]
    said, patch = io.StringIO(), pytest.MonkeyPatch()
    patch.setattr(overview, "dry_run", then)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = main(["launch.py", *tiny_run, *words])
    finally:
        patch.undo()
    assert code in (0, 2), said.getvalue()
    return said.getvalue() if code else None


def names(message, key):
    """Whether a message names a key, or the four keys of a duration, or the section of a typo."""
    section, _, name = key.rpartition(".")
    prefix, _, unit = name.rpartition("_")
    return any(word in message for word in (
        key, f"{section}.*", name if len(name) > 1 else key,
        f"{section}.{prefix}_*" if unit in UNITS else key, section if section not in DEFAULTS
        and section else key))


def check(changes, way, then):
    note(f"{way.__name__}: {changes}")
    message = way(changes, then)
    if message is not None:
        assert "Traceback" not in message
        assert any(names(message, key) for key in changes), message


def some(count):
    return settings(max_examples=count, deadline=None, database=None, derandomize=True,
                    suppress_health_check=list(HealthCheck))


@some(20)
@given(mutations(), st.sampled_from([in_file, on_command_line]))
def test_a_mutated_config_runs_or_names_the_key(root, changes, way):
    with contextlib.chdir(root):
        check(changes, way, lambda experiment: None)


@pytest.mark.slow
@some(500)
@given(mutations(), st.sampled_from([in_file, on_command_line]))
def test_five_hundred_mutated_configs_can_be_traced_or_name_the_key(root, changes, way):
    with contextlib.chdir(root):
        check(changes, way, overview.lower)  # A dry run without the compiler.


def test_what_cannot_fit_is_refused_before_anything_is_allocated(root, monkeypatch):
    from cnnjax.jobs import memory

    monkeypatch.chdir(root)
    monkeypatch.setattr(memory, "memory_of", lambda device: 8_000_000_000)
    for change, key in (({"data.image_size": 8192, "train.batch_size": 256}, "train.batch_size"),
                        ({"eval.image_size": 8192, "data.image_size": 16,
                          "eval.batch_size": 2**20}, "eval.batch_size"),
                        ({"model.widths": (8, 10**6), "model.hidden": (10**6,)}, "model.widths"),
                        ({"data.image_size": 1024, "train.batch_size": 1024}, "train.batch_size")):
        message = in_file(change, overview.lower)
        assert message and key in message and "GB" in message, (change, message)
        assert re.search(r"smaller --config\.", message)


def test_what_fits_is_not_refused(root, monkeypatch):
    monkeypatch.chdir(root)
    assert in_file({"data.image_size": 64, "train.batch_size": 1024}, lambda e: None) is None


def test_what_fits_in_parts_is_not_refused(root, monkeypatch):
    from cnnjax.jobs import memory

    monkeypatch.chdir(root)
    monkeypatch.setattr(memory, "memory_of", lambda device: 8_000_000_000)
    change = {"data.image_size": 1024, "train.batch_size": 1024, "eval.batch_size": 16}
    assert "--config.train.accumulate parts" in in_file(change, lambda e: None)
    assert in_file(change | {"train.accumulate": 64}, lambda e: None) is None
