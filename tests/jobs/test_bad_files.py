"""Runs on folders with files that are no images."""

import json
import types

import numpy as np
import pytest
from odd_files import bad_files, encode, photo
from results import lines, summary
from test_hosts import Processes
from test_hosts import train as train_processes

from cnnjax.command_line import main
from cnnjax.jobs.bad_files import BadFiles

GOOD, BAD = {"train": 60, "val": 40}, {"train": 60, "val": 40}
RUN = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(4,)",
       "--config.data.image_size=16", "--config.train.batch_size=20", "--config.train.epochs=3",
       "--config.log.progress=none", "--config.log.plot=False", "--config.log.tensorboard=False"]


def test_a_folder_that_cannot_be_written_is_told_of_once(tmp_path, capfd):
    (tmp_path / "bad_files").touch()
    bad = BadFiles(quiet=True)
    bad.keep_in(tmp_path, resumed=False)
    report = bad.report_of(types.SimpleNamespace(name="train"))
    for i in range(3):
        report(i, f"{i}.jpg", "is empty")
    assert len(bad) == 3 and capfd.readouterr().err.count("bad_files cannot be written") == 1


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 100 photos and 100 bad files; returns it and the names of the bad ones."""
    folder, bad = tmp_path_factory.mktemp("photos"), {}
    for split in GOOD:
        for name in ("ant", "bee"):
            (folder / split / name).mkdir(parents=True)
        for i in range(GOOD[split]):
            image = photo(i + 1000 * (split == "val"), 20 + i % 7, 30 - i % 5)
            (folder / split / ("ant", "bee")[i % 2] / f"{i}.jpg").write_bytes(encode(image))
        kinds = [file for i in range(-(-BAD[split] // 14)) for file in bad_files(i).values()]
        for i, (extension, contents, message) in enumerate(kinds[:BAD[split]]):
            path = folder / split / ("ant", "bee")[i % 2] / f"{i}bad{extension}"
            path.write_bytes(contents)
            bad[str(path)] = message
    assert len(bad) == 100
    return folder, bad


def run(photos, folder, *words):
    return main([*RUN, f"--config.data.name=folder:{photos[0]}", f"--workdir={folder}", *words])


def warnings(text):
    return [line for line in text.splitlines() if line.startswith("Warning: ")]


@pytest.mark.parametrize("placement", [pytest.param("device", marks=pytest.mark.slow), "stream"])
def test_a_run_goes_on_without_a_hundred_bad_files(photos, tmp_path, capfd, placement):
    words = ["--config.data.on_error=skip", f"--config.data.placement={placement}"]
    assert run(photos, tmp_path / "run", *words) == 0
    said = warnings(capfd.readouterr().err)
    for path, message in photos[1].items():
        assert [line for line in said if path in line and message in line], (path, message)
    assert len(said) == 100
    found = summary(tmp_path / "run")
    assert found["examples_evaluated"] == GOOD["val"] and found["steps"] == 18
    assert found["bad_files"]["count"] == 100
    assert sorted(found["bad_files"]["files"]) == sorted(photos[1])
    assert run(photos, tmp_path / "run", *words, "--job=evaluate") == 0
    values = json.loads((tmp_path / "run/evaluate.json").read_text())
    assert values["eval_examples"] == GOOD["val"] and values["bad_files"]["count"] == BAD["val"]
    assert values["eval_top1"] == found["top1"] and np.sum(values["confusion"]) == GOOD["val"]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_stopped_ends_with_the_same_bits_and_names_none_twice(photos, workers, tmp_path,
                                                                         capfd):
    words = ["--config.data.on_error=skip", "--config.data.placement=stream",
             f"--config.data.workers={workers}", "--config.eval.every_steps=7"]
    assert run(photos, tmp_path / "whole", *words) == 0
    capfd.readouterr()
    assert run(photos, tmp_path / "parts", *words, "--config.train.stop_after_steps=4") == 0
    assert run(photos, tmp_path / "parts", *words) == 0
    said = warnings(capfd.readouterr().err)
    assert len(said) == len(set(said)) == 100
    whole, parts = summary(tmp_path / "whole"), summary(tmp_path / "parts")
    assert parts["bad_files"] == whole["bad_files"] and whole["bad_files"]["count"] == 100
    assert parts["state_sha256"] == whole["state_sha256"]
    assert lines(tmp_path / "parts")[-1] == lines(tmp_path / "whole")[-1]


def test_a_run_that_a_bad_file_ended_goes_on_without_it(photos, tmp_path, capfd):
    words = ["--config.data.placement=stream", "--config.train.epochs=1"]
    assert run(photos, tmp_path, *words) == 2
    said = capfd.readouterr().err
    named = [path for path in photos[1] if path in said]
    assert len(named) == 1 and photos[1][named[0]] in said
    assert "Traceback" not in said and said.count("launch.py:") == 1
    assert "--config.data.on_error=skip" in said and not (tmp_path / "summary.json").exists()
    assert run(photos, tmp_path, *words, "--config.data.on_error=skip") == 0
    assert summary(tmp_path)["examples_evaluated"] == GOOD["val"]


def test_frozen_features_are_those_of_the_good_files(photos, tmp_path, capfd):
    words = ["--config.data.on_error=skip", "--config.weights.path=random",
             "--config.head.epochs=2", "--config.train.epochs=0"]
    assert run(photos, tmp_path, *words) == 0
    found = summary(tmp_path)
    assert (found["examples_evaluated"], found["bad_files"]["count"]) == (GOOD["val"], 100)
    assert len(warnings(capfd.readouterr().err)) == 100


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["device", "stream"])
def test_two_processes_leave_out_the_same_files_as_one(photos, root, tmp_path, placement):
    words = ["--config.model.widths=(4,)", "--config.data.image_size=16",
             f"--config.data.name=folder:{photos[0]}", "--config.data.on_error=skip",
             f"--config.data.placement={placement}", "--config.train.batch_size=20",
             "--config.train.steps=12"]
    one, losses = train_processes(tmp_path / "one", root, *words, count=1, devices=2)
    two, others = train_processes(tmp_path / "two", root, *words)
    assert losses == others and one["state_sha256"] == two["state_sha256"]
    assert one["bad_files"] == two["bad_files"] and one["bad_files"]["count"] == 100
    assert one["examples_evaluated"] == two["examples_evaluated"] == GOOD["val"]
    codes, _, errors = Processes(tmp_path / "two", root, *words, "--job=evaluate").end()
    assert codes == [0, 0], errors
    values = json.loads((tmp_path / "two/evaluate.json").read_text())
    assert values["bad_files"]["count"] == BAD["val"]
