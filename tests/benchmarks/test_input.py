"""The benchmark's table, and its own sides of a measurement."""

import argparse
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import input as benchmark
from benchmarks import input_cnnjax
from cnnjax.types import UserError


def speeds(*values):
    return [{"images_s": value} for value in values]


def test_ratios_are_of_the_same_round():
    results = {("decode", 1, 1): speeds(100.0, 200.0), ("threads", 1, 1): speeds(90.0, 160.0),
               ("pil", 1, 0): speeds(50.0, 60.0), ("pil", 1, 1): speeds(40.0, 80.0),
               ("decode", 2, 2): speeds(200.0, 360.0),
               ("threads", 2, 2): speeds(180.0, 320.0), ("pil", 2, 2): [{"error": "no torch"}]}
    assert benchmark.row(results, ("threads", 1, 1)) == (
        "| threads | 1 | 1 | 125 (90 to 160) | 125 (90 to 160) | 0.85 (0.80 to 0.90) | "
        "1.90 (1.80 to 2.00) |  |")
    assert benchmark.row(results, ("threads", 2, 2)) == (
        "| threads | 2 | 2 | 250 (180 to 320) | 125 (90 to 160) | 0.89 (0.89 to 0.90) |  | "
        "2.00 (2.00 to 2.00) |")
    assert "not available: no torch" in benchmark.row(results, ("pil", 2, 2))


def test_every_side_has_a_worker_a_core():
    assert benchmark.cases_of([1, 4], ["decode", "threads", "pil"]) == [
        ("decode", 1, 1), ("threads", 1, 1), ("pil", 1, 1), ("pil", 1, 0), ("decode", 4, 4),
        ("threads", 4, 4), ("pil", 4, 4)]


@pytest.fixture
def folder(tmp_path):
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            pixels = np.full((30 + i, 40, 3), 80 * i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.jpg")
    return tmp_path / "photos"


@pytest.mark.parametrize(("mode", "cores"), [
    ("decode", 1), ("decode", 2), ("threads", 1), ("workers", 1)])
def test_our_side_measures_what_comes_after_warming_up(folder, root, mode, cores):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.input_cnnjax", str(folder), mode, "--images=20",
         "--warm_up=4", "--batch=3", "--size=8", f"--cores={cores}"],
        cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images_s"] > 0


def test_the_copies_of_another_size(folder):
    with benchmark.photos(folder, "64x48") as copy:
        assert Image.open(copy / "train/b/2.jpg").size == (64, 48)
        assert len(list(copy.rglob("*.jpg"))) == 12
    with benchmark.photos(folder, None) as same:
        assert same == folder


@pytest.mark.parametrize(("words", "message"), [
    ([], "--folder is missing: name a folder of photos"),
    (["--folder=nowhere"], "There is no folder nowhere/train")])
def test_photos_that_are_not_there_are_one_message(words, message, monkeypatch, capsys):
    monkeypatch.delenv("CNNJAX_TEST_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["input.py", *words])
    with pytest.raises(SystemExit) as end:
        benchmark.main()
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_decoders_of_a_folder_without_photos_are_not_waited_for(tmp_path):
    with pytest.raises(UserError):
        input_cnnjax.decode_beside(argparse.Namespace(folder=tmp_path, cores=1))
