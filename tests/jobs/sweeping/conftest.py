"""Sweeps whose trials are fake: what they share."""

import subprocess
import sys
from pathlib import Path

import pytest

FAKE = Path(__file__).with_name("fake_launch.py")
EXPERIMENT = """
from cnnjax import config as config_lib
from cnnjax.sweeps import Trial


def get_config(preset=None):
    config = config_lib.default()
    config.model.name = "lenet5"
    config.train.steps = 90
    return config


def sweep(preset=None):
    for i in range(int(preset or 8)):
        yield Trial(f"lr_{i}", {"schedule.lr": i / 10}, {"i": i})
"""
DRIVER = """
import pathlib, sys
from cnnjax.jobs import sweep
sweep._LAUNCH = pathlib.Path(sys.argv.pop(1))
from cnnjax.command_line import main
sys.exit(main(sys.argv))
"""


@pytest.fixture
def experiment(tmp_path) -> Path:
    """An experiment file whose sweep has 8 trials, or as many as the preset says."""
    path = tmp_path / "experiment.py"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture
def start(root, monkeypatch):
    """(words) -> the process of `launch.py --job=sweep …` whose trials are fake."""
    def start(*words):
        return subprocess.Popen([sys.executable, "-c", DRIVER, str(FAKE), "--job=sweep", *words],
                                cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)
    return start
