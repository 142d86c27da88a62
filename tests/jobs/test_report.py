"""--job=report on sweeps whose runs are files that nobody trained."""

import csv
import html.parser
import importlib.util
import itertools
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnjax import config as config_lib
from cnnjax import sweeps
from cnnjax.command_flags import parse
from cnnjax.command_line import main
from cnnjax.jobs import report
from cnnjax.jobs.sweeping import outcome
from cnnjax.sweeps import Trial
from cnnjax.types import UserError

HERE = Path(__file__).parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


synthetic = load("synthetic_sweep")


@pytest.fixture
def no_figures(monkeypatch):
    """Leaves out what takes seconds and is tested once."""
    monkeypatch.setattr(report.trials_lib, "save_figures", lambda *_: [])


@pytest.fixture(scope="module")
def degradation(tmp_path_factory):
    """A reported sweep of 8 trials x 3 seeds, of which one failed, one runs, one hasn't begun."""
    folder = tmp_path_factory.mktemp("sweep")
    synthetic.degradation(folder)
    for name, state in (("plain_56", "failed"), ("plain_44", "running"), ("plain_32", None)):
        run = sweeps.folder_of(folder, name, 2)
        shutil.rmtree(run)
        if state:
            synthetic.write_run(run, 0.99, seed=2, status=None)
            synthetic.write_state(run, state, "Traceback\nMemoryError: <script>" * (
                state == "failed"))
    assert report.run(config_lib.default(), folder) == 0
    return folder


def data_of(folder):
    page = (folder / "report" / "index.html").read_text()
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])


def lines_of(folder):
    with (folder / "report" / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_run_is_a_line_of_the_csv_and_counts_only_if_it_finished(degradation):
    lines = lines_of(degradation)
    assert len(lines) == 24
    others = {(r["name"], r["seed"]): r["state"] for r in lines if r["state"] != "done"}
    assert others == {("plain_56", "2"): "failed", ("plain_44", "2"): "running",
                      ("plain_32", "2"): "not started"}
    assert all((r["top1"] == "") == (r["state"] != "done") for r in lines)


def test_numbers_of_the_csv_are_those_of_the_summaries_and_the_last_record(degradation):
    line = next(r for r in lines_of(degradation) if (r["name"], r["seed"]) == ("residual_44", "1"))
    summary = json.loads(
        (degradation / "residual_44/seed_1/summary.json").read_text())
    for key in ("params", "multiply_adds", "seconds", "images_per_second", "top1", "top5", "steps"):
        assert float(line[key]) == summary[key]
    last = json.loads(
        (degradation / "residual_44/seed_1/metrics.jsonl").read_text().splitlines()[-1])
    assert float(line["train_top1"]) == last["train_top1"]
    assert (line["tag.family"], line["tag.depth"]) == ("residual", "44")


def test_the_page_has_means_over_the_finished_seeds(degradation):
    lines = lines_of(degradation)
    for trial in data_of(degradation)["trials"]:
        top1 = [float(r["top1"]) for r in lines if r["name"] == trial["name"] and r["top1"]]
        assert trial["top1"]["n"] == len(top1)
        assert trial["top1"]["mean"] == pytest.approx(np.mean(top1), rel=1e-4)
        assert trial["top1"]["std"] == pytest.approx(np.std(top1, ddof=1), rel=1e-4)


def test_a_failure_is_named_with_its_last_line_in_table_and_page(degradation):
    table = (degradation / "report" / "table.md").read_text()
    assert "3 of 24 runs did not finish" in table
    assert "| plain_56 | 2 | failed | 1000 | MemoryError: <script> |" in table
    run, = (run for trial in data_of(degradation)["trials"] for run in trial["runs"]
            if run["state"] == "failed")
    assert run["message"].endswith("MemoryError: <script>")


def test_figures_are_png_and_pdf_and_those_that_the_tags_ask_for(degradation):
    names = {path.name for path in (degradation / "report").iterdir()}
    for name in ("accuracy_params", "accuracy_multiply_adds", "accuracy_seconds",
                 "error_by_depth", "equal_cost", "learning_curves"):
        assert {f"{name}.png", f"{name}.pdf"} <= names
    assert "grid.png" not in names
    assert (degradation / "report" / "equal_cost.png").read_bytes().startswith(b"\x89PNG")
    assert (degradation / "report" / "equal_cost.pdf").read_bytes().startswith(b"%PDF")


class _Parser(html.parser.HTMLParser):
    """Collects what a page would load, and checks that elements are closed in order."""

    VOID = ("meta", "link", "input", "br")

    def __init__(self):
        super().__init__()
        self.open, self.loads = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [value for key, value in attributes if key in ("src", "href", "action")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_names_nothing_to_load(degradation):
    page = (degradation / "report" / "index.html").read_text()
    parser = _Parser()
    parser.feed(page)
    assert parser.open == [] and parser.loads == ["data:,"]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", page)


def test_a_page_of_200_trials_is_below_2_megabytes(tmp_path, no_figures):
    assert len(synthetic.families(tmp_path, seeds=(0, 1))) == 200
    report.run(config_lib.default(), tmp_path)
    assert (tmp_path / "report" / "index.html").stat().st_size < 1_000_000
    assert len(data_of(tmp_path)["trials"]) == 200


def test_two_number_tags_that_form_a_grid_are_a_heat_map(tmp_path):
    synthetic.grid(tmp_path, seeds=(0,))
    report.run(config_lib.default(), tmp_path)
    assert (tmp_path / "report" / "grid.png").exists()
    assert data_of(tmp_path)["grid"] == ["lr", "batch"]
    assert not (tmp_path / "report" / "accuracy_params.png").exists()  # They are all the same.


def test_true_and_false_are_two_series_and_no_axis(tmp_path, no_figures):
    trials = [Trial(f"lr_{lr}_{flip}", {}, {"lr": lr, "flip": flip})
              for lr in (0.01, 0.1, 1.0) for flip in (False, True)]
    synthetic.write_sweep(tmp_path, trials, [0], lambda *_: {"top1": 0.9})
    report.run(config_lib.default(), tmp_path)
    found = data_of(tmp_path)
    assert (found["series"], found["numbers"], found["grid"]) == ("flip", ["lr"], None)
    assert [t["series"] for t in found["trials"]] == ["False", "True"] * 3
    assert lines_of(tmp_path)[1]["tag.flip"] == "True"
    assert sweeps.read(tmp_path)[1][1].trial.tags["flip"] is True  # A search may ask for it.


def test_the_page_joins_families_and_not_what_a_search_has_tried(tmp_path, no_figures):
    synthetic.search(tmp_path)
    report.run(config_lib.default(), tmp_path)
    assert data_of(tmp_path)["joined"] == ["base", "depth", "width"]


def test_a_folder_of_ordinary_runs_is_reported_each_run_a_row(tmp_path, no_figures, capsys):
    synthetic.write_run(tmp_path / "lenet5", 0.98, model="lenet5")
    synthetic.write_run(tmp_path / "more" / "resnet", 0.99, seed=3, params=5, macs=7)
    synthetic.write_run(tmp_path / "cut off", 0.5, status=None)
    synthetic.write_run(tmp_path / "nan", 0.5, status="non_finite")
    assert main(["launch.py", "--job=report", f"--workdir={tmp_path}"]) == 0
    assert "4" in capsys.readouterr().out
    states = {(r["name"], r["seed"]): r["state"] for r in lines_of(tmp_path)}
    assert states == {("lenet5", "0"): "done", ("more-resnet", "3"): "done",
                      ("cut_off", "0"): "unfinished", ("nan", "0"): "non_finite"}


@pytest.mark.parametrize("name", ["config.json", "summary.json", "trial.json"])
@pytest.mark.parametrize("content", ['{"status": "do', "[]"])
@pytest.mark.parametrize("of_a_sweep", [False, True])
def test_a_run_with_a_damaged_file_is_named_beside_the_others(name, content, of_a_sweep, tmp_path,
                                                              no_figures, capsys):
    for run in ("good", "bad"):
        synthetic.write_run(tmp_path / run / "seed_0", 0.98)
        synthetic.write_state(tmp_path / run / "seed_0", "done")
    if of_a_sweep:
        sweeps.write(tmp_path, [Trial("good"), Trial("bad")], [0])
    (damaged := tmp_path / "bad" / "seed_0" / name).write_text(content)
    assert main(["launch.py", "--job=report", f"--workdir={tmp_path}"]) == 0
    assert f"warning: {damaged} cannot be read" in capsys.readouterr().err
    bad, good = sorted(lines_of(tmp_path), key=lambda line: line["name"])
    assert str(damaged) in bad["message"] and (good["state"], good["message"]) == ("done", "")
    assert bad["state"] == ("unreadable" if name == "summary.json" else "done")
    assert any(str(damaged) in run["message"] for trial in data_of(tmp_path)["trials"]
               for run in trial["runs"])


@pytest.mark.slow
def test_the_report_of_a_report_is_the_same(degradation):
    kept = {path.name: path.read_bytes() for path in (degradation / "report").iterdir()}
    report.run(config_lib.default(), degradation)
    assert {path.name: path.read_bytes()
            for path in (degradation / "report").iterdir()} == kept


def test_a_sweep_in_which_nothing_has_finished_is_reported_as_such(tmp_path):
    sweeps.write(tmp_path, [Trial("a"), Trial("b")], [0])
    assert report.run(config_lib.default(), tmp_path) == 0
    assert "2 of 2 runs did not finish" in (tmp_path / "report" / "table.md").read_text()


def test_a_dry_run_writes_nothing(tmp_path):
    synthetic.write_run(tmp_path / "a", 0.9)
    assert main(["launch.py", "--job=report", f"--workdir={tmp_path}", "--dry_run"]) == 0
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(("words", "message"), [
    ([], "Say which sweep or folder of runs"), (["--workdir={}"], "nothing to report")])
def test_a_report_of_nothing_is_a_user_error(words, message, tmp_path, capsys):
    words = [word.format(tmp_path) for word in words]
    assert main(["launch.py", "--job=report", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_sweep_is_a_user_error(tmp_path, capsys):
    (tmp_path / "sweep.json").write_text('{"trials": [')
    assert main(["launch.py", "--job=report", f"--workdir={tmp_path}"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def _natural(name):
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


@pytest.mark.slow
@pytest.mark.parametrize("make", ["degradation", "grid", "families", "search"])
@pytest.mark.parametrize("width", [1200, 390])
def test_chromium_shows_the_page_without_an_error_or_a_request(make, width, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    trials = getattr(synthetic, make)(tmp_path)
    report.run(config_lib.default(), tmp_path)
    page = (tmp_path / "report" / "index.html").as_uri()
    with load("chromium").Browser(chromium, tmp_path / "profile", width) as browser:
        browser.open(page)
        assert browser.value("document.querySelectorAll('#table tr.trial').length") == len(trials)
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value("document.querySelectorAll('#chart .point').length") == len(trials)
        assert browser.value("[...document.querySelectorAll('#curves path:not(.train)')]"
                             ".every(path => path.getTotalLength() > 0)")
        if make == "grid":
            assert browser.value("[...document.querySelectorAll('#grid > svg > text:not(.soft)')]"
                                 ".map(text => text.textContent)") == [
                "0.001", "0.004", "0.016", "0.064", "1.024", "8", "32", "128", "512"]
        joined = {"degradation": 2, "grid": 0, "families": 4, "search": 2}[make]
        assert browser.value("document.querySelectorAll('#chart .family').length") == joined
        first = "document.querySelector('#table tr.trial td').textContent"
        browser.value("document.querySelector('#table th button').click()")
        names = sorted((t.name for t in trials), key=_natural)
        assert browser.value(first) == names[0]
        browser.value("document.querySelector('#table th button').click()")
        assert browser.value(first) == names[-1]
        browser.hover("#chart .point:last-child .shape")
        assert browser.value("document.getElementById('tip').hidden") is False
        name = browser.value("document.querySelector('#tip b').textContent")
        assert name in {t.name for t in trials}
        browser.value("document.getElementById('each').click()")
        for key in ("x", "y", "colour"):
            for value in browser.value(f"[...document.getElementById('{key}').options]"
                                       ".map(o => o.value)"):
                browser.value(f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent("
                              f"new Event('change')); }})(document.getElementById('{key}'))")
        browser.value("document.querySelector('#table tr.trial').click()")
        assert browser.value("document.querySelectorAll('#table tr.more').length") == 1
        assert browser.errors == [] and browser.requests == [page]


@pytest.mark.slow
def test_chromium_scrolls_a_grid_of_many_columns_in_its_own_box(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    synthetic.grid(tmp_path, seeds=(0,), rates=[round(0.0001 * 1.5**i, 6) for i in range(16)])
    report.run(config_lib.default(), tmp_path)
    with load("chromium").Browser(chromium, tmp_path / "profile", 390) as browser:
        browser.open((tmp_path / "report" / "index.html").as_uri())
        assert browser.value("document.documentElement.scrollWidth") == 390
        assert browser.value("(e => e.scrollWidth > 2 * e.clientWidth)"
                             "(document.getElementById('grid'))")
        # Of the cells of a row, and of the rates below the columns.
        for texts, count in (("#grid g text", 64), ("#grid > svg > text:not(.soft)", 16 + 4)):
            boxes = browser.value(f"[...document.querySelectorAll('{texts}')].map(e => "
                                  "{const b = e.getBoundingClientRect();"
                                  " return [b.top, b.left, b.right]})")
            assert len(boxes) == count
            for (top, _, right), (below, left, _) in itertools.pairwise(sorted(boxes)):
                assert below > top + 1 or left > right


def test_runs_of_a_sweep_keep_their_state_in_a_report_of_the_folder_above(tmp_path):
    synthetic.write_run(tmp_path / "s" / "a" / "seed_0", 0.9)
    synthetic.write_state(tmp_path / "s" / "a" / "seed_0", "failed", "killed")
    synthetic.write_state(tmp_path / "s" / "b" / "seed_3", "failed", "no such file")
    rows = [report.row_of(result) for result in report.read_runs(tmp_path)[1]]
    assert [(row.name, row.seed, row.state, row.message) for row in rows] == [
        ("s-a-seed_0", 0, "failed", "killed"), ("s-b-seed_3", 3, "failed", "no such file")]


def test_runs_whose_folders_are_written_alike_stay_rows_of_their_own(tmp_path):
    for name in ("net/mnist", "net-mnist", "net mnist"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    names = [result.trial.name for result in report.read_runs(tmp_path)[1]]
    assert len(set(names)) == 3 and {name.strip("_") for name in names} == {
        "net-mnist", "net_mnist"}


@pytest.mark.parametrize("tag", [[4, 8], float("nan"), None])
def test_a_tag_that_no_report_could_show_is_refused_before_anything_runs(tag):
    with pytest.raises(UserError, match="Trial 'a': its tag 'x' is"):
        Trial("a", {}, {"x": tag})


@pytest.mark.parametrize(("seeds", "named", "words"), [
    ([3, 4], False, ["--config.seed=3", "--config.seeds=2"]), ([0, 1], False, ["--config.seeds=2"]),
    ([3], True, ["--job=sweep", "--config.seed=3"]), ([0], True, ["--job=sweep"])])
def test_the_command_of_a_sweep_says_its_seeds(seeds, named, words):
    about = {"experiment": "experiments/a.py:b", "seeds": seeds, "overrides": {"train.steps": 3}}
    found = report._command(about, Path("runs/x"), named).split()
    assert sorted(found) == sorted(["python", "launch.py", "--config=experiments/a.py:b", *words,
                                    "--config.train.steps=3", "--workdir=runs/x"])


# The second sets model.stem to a text, which is then read as it stands.
@pytest.mark.parametrize("experiment", ["simple_cnn.py", "resnet50.py:cifar10"])
def test_the_overrides_of_a_page_can_be_typed(experiment, root, tmp_path, no_figures):
    overrides = {"train.epochs": None, "train.steps": 5, "train.trainable": ("head/.*", "a b"),
                 "model.activation": "silu", "model.widths": (8, 16), "augment.flip": True,
                 "model.stem": "imagenet", "model.padding": None, "optimizer.name": "adamw",
                 "data.name": "npz:my arrays.npz"}
    synthetic.write_sweep(tmp_path, [Trial("a", overrides)], [0], lambda *_: {"top1": 0.5})
    report.run(config_lib.default(), tmp_path)
    words = shlex.split(" ".join(data_of(tmp_path)["trials"][0]["overrides"]))
    command = parse(["launch.py", f"--config={root}/experiments/{experiment}", *words])
    flat = config_lib.flatten(command.config)
    assert {key: flat[key] for key in overrides} == config_lib.flatten(overrides)


def test_the_commands_of_a_page_can_be_typed_for_a_folder_with_a_space():
    about = report._about({"experiment": "a.py"}, {"trials": 1}, Path("my runs"), True)
    commands = [shlex.split(part) for part in re.findall(r": (python .*?)(?:\. |$)", about)]
    assert [words[-1] for words in commands] == ["--workdir=my runs"] * 2


def test_it_is_said_between_which_runs_their_data_changed(tmp_path, capsys, no_figures):
    synthetic.write_sweep(tmp_path, [Trial("a"), Trial("b")], [0, 1],
                          lambda trial, seed: {"top1": 0.9})
    runs = [sweeps.folder_of(tmp_path, name, seed) for name in "ab" for seed in (0, 1)]

    def said(*fingerprints):
        for run, fingerprint in zip(runs, fingerprints, strict=True):
            found = json.loads((run / "summary.json").read_text())
            found |= {"data_fingerprint": fingerprint}
            (run / "summary.json").write_text(json.dumps(found))
        assert report.run(config_lib.default(), tmp_path) == 0
        of_report = capsys.readouterr().err
        assert outcome.report(tmp_path, "experiment", sweeps.read(tmp_path)[1]) == 0
        assert capsys.readouterr().err == of_report
        return of_report

    assert said("1", "1", "1", "1") == "" == said("1", None, "1", "1")  # None: from before.
    assert f"digits changed between {runs[0]} and {runs[2]}: their" in said("1", "1", "2", "1")
    config = json.loads((runs[2] / "config.json").read_text())
    config["data"]["train_split"] = "train[:50%]"
    (runs[2] / "config.json").write_text(json.dumps(config))
    assert said("1", "1", "2", "1") == ""
