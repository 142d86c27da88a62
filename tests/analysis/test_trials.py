"""Rows, statistics, Pareto fronts, and which figures a sweep gets."""

import csv
import io
import itertools
import json

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from cnnjax.analysis.trials import (
    Row,
    groups,
    pareto_front,
    save_figures,
    spread,
    to_csv,
    to_markdown,
)
from cnnjax.analysis.trials.curves import curves_by_series, mean_curve
from cnnjax.analysis.trials.figures import (
    _STYLE,
    _drawn,
    _equal_cost_bars,
    _figures,
    _heat_map,
    _scatter,
)
from cnnjax.analysis.trials.layout import equal_costs, is_dimension, lay_out

TOP1 = (0.9125, 0.9031, 0.9188)


def row(name="a", seed=0, top1=0.9, state="done", **more):
    return Row(name, seed, state, top1=top1, **more)


def test_the_spread_is_scipys_mean_std_and_t_interval():
    found = spread([*TOP1, None])
    low, high = stats.t.interval(0.95, df=2, loc=np.mean(TOP1), scale=stats.sem(TOP1))
    assert found.n == 3 and found.mean == pytest.approx(np.mean(TOP1))
    assert found.std == pytest.approx(np.std(TOP1, ddof=1))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def test_one_seed_has_a_mean_and_no_interval():
    assert (spread([0.5]).mean, spread([0.5]).std, spread([0.5]).half) == (0.5, None, None)
    assert (spread([]).n, spread([]).mean) == (0, None)


def test_only_finished_runs_count_in_the_mean_and_all_are_listed():
    trial, = groups([row(seed=0, top1=0.9), row(seed=1, top1=0.1, state="failed"),
                     row(seed=2, top1=None, state="running")])
    assert (trial.spread("top1").mean, trial.spread("top1").n) == (0.9, 1)
    text = to_markdown([trial], "t")
    assert "1 done, 1 failed, 1 running" in text and "2 of 3 runs did not finish" in text


def test_the_pareto_front_is_what_comparing_all_pairs_gives():
    noise = np.random.default_rng(0)
    for _ in range(50):
        costs, values = noise.integers(0, 6, 12).tolist(), noise.integers(0, 6, 12).tolist()
        beaten = {i for i, j in itertools.permutations(range(12), 2)
                  if costs[j] <= costs[i] and values[j] >= values[i]
                  and (costs[j], values[j]) != (costs[i], values[i])}
        assert set(pareto_front(costs, values)) == set(range(12)) - beaten
    assert pareto_front([1, None, 2], [0.5, 0.9, None]) == [0]


def test_a_csv_has_a_line_a_run_with_tags_overrides_and_empty_cells_for_the_unknown():
    rows = [row("a", 0, 0.91, tags={"family": "width"}, overrides={"model.widths": (8, 16)},
                params=100),
            row("b,1", 3, None, state="failed", tags={"depth": 2}, message="no\nmemory")]
    first, second = csv.DictReader(io.StringIO(to_csv(rows)))
    assert (first["name"], first["tag.family"], first["top1"]) == ("a", "width", "0.91")
    assert json.loads(first["override.model.widths"]) == [8, 16] and first["params"] == "100"
    assert (second["name"], second["seed"], second["state"]) == ("b,1", "3", "failed")
    assert (second["top1"], second["tag.depth"], second["message"]) == ("", "2", "no\nmemory")


def test_markdown_gives_mean_and_std_the_interval_and_the_fronts():
    rows = [row("small", i, top1, params=10) for i, top1 in enumerate(TOP1)]
    rows += [row("large|x", 0, 0.5, params=20)]
    lines = to_markdown(groups(rows), "title").splitlines()
    small, = (line for line in lines if line.startswith("| small"))
    assert f"{100 * np.mean(TOP1):.2f} ± {100 * np.std(TOP1, ddof=1):.2f}" in small
    half = stats.t.ppf(0.975, 2) * stats.sem(TOP1)
    assert f"{100 * (np.mean(TOP1) - half):.2f} to {100 * (np.mean(TOP1) + half):.2f}" in small
    assert "params" in small and "All 4 runs finished." in lines
    large, = (line for line in lines if line.startswith("| large"))
    assert "large\\|x" in large and "params" not in large


@pytest.mark.parametrize(("tags", "series", "numbers", "grid"), [
    ([{"family": f, "depth": d} for f in ("plain", "residual") for d in (20, 32, 44)],
     "family", ("depth",), None),
    ([{"lr": r, "batch": b} for r in (0.1, 0.2, 0.4) for b in (8, 16)],
     None, ("lr", "batch"), ("lr", "batch")),
    ([{"year": 1998, "twin": "full", "published_top1": 99.0},
      {"year": 2014, "twin": "1/4", "published_top1": 50.0},
      {"year": 2015, "twin": "1/4", "published_top1": 60.0}], "twin", ("year",), None),
    ([{"alpha": a, "beta": 2 - a} for a in (1.0, 1.1, 1.2, 1.3)], None, ("alpha", "beta"), None),
    ([{}, {}], None, (), None)])
def test_tags_say_what_tells_series_apart_what_an_axis_is_and_what_a_grid(
        tags, series, numbers, grid):
    layout = lay_out(groups([row(f"t{i}", tags=t) for i, t in enumerate(tags)]))
    assert (layout.series, layout.numbers, layout.grid) == (series, numbers, grid)


def test_families_are_compared_where_their_multiply_adds_are_about_equal():
    costs = {("depth", 10): 100, ("width", 10): 110, ("depth", 20): 200, ("width", 20): 290}
    trials = groups([row(f"{f}{n}", tags={"family": f, "n": n}, multiply_adds=cost)
                     for (f, n), cost in costs.items()])
    names = [[t.name for t in members] for members in equal_costs(trials, lay_out(trials))]
    assert names == [["width10", "depth10"]]


def test_a_sweep_says_by_a_tag_which_costs_are_meant_to_be_equal():
    costs = {"depth": 130, "width": 190}
    trials = groups([row("base", tags={"family": "base", "cost_factor": 1}, multiply_adds=90)] + [
        row(f, tags={"family": f, "cost_factor": 2}, multiply_adds=cost)
        for f, cost in costs.items()])
    names = [[t.name for t in members] for members in equal_costs(trials, lay_out(trials))]
    assert names == [["depth", "width"]]


def compound(cloud=0):
    """A base, two families of two sizes, and what a search has tried."""
    tags = [("base", "base", 1)] + [(f"{f}{c}", f, c) for f in ("depth", "width") for c in (2, 4)]
    tags += [(f"candidate{i}", "candidate", 2) for i in range(cloud)]
    curve = {"epoch": [1.0, 2.0], "train_top1": [0.5, 0.6], "eval_top1": [0.5, 0.7]}
    return groups([row(name, tags={"family": f, "cost_factor": c}, multiply_adds=90 * c,
                       curve=curve) for name, f, c in tags])


def test_what_a_search_has_tried_is_no_family_of_equal_cost():
    trials = compound(cloud=3)
    names = [[t.name for t in members] for members in equal_costs(trials, lay_out(trials))]
    assert names == [["depth2", "width2"], ["depth4", "width4"]]
    figure = Figure()
    axes = figure.subplots()
    _scatter(axes, trials, lay_out(trials), "multiply_adds", "cost")
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 1
             and line.get_linestyle() == "-"]
    # Of each family its own, and the one that comes from the base.
    assert len(lines) == 4


def boxes(figure, artists):
    """Returns where they are drawn, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [artist.get_window_extent(canvas.get_renderer()) for artist in artists]


@matplotlib.rc_context(_STYLE)
def test_names_of_nets_that_are_nearly_as_good_do_not_cover_one_another():
    nets = [("alexnet", 700, 0.570), ("vgg11_bn", 710, 0.571), ("resnet18", 720, 0.572),
            ("googlenet", 705, 0.5705), ("lenet5", 4, 0.4), ("efficientnet_b0", 400, 0.7)]
    trials = groups([row(name, top1=top1, multiply_adds=cost) for name, cost, top1 in nets])
    figure = _drawn("history", trials, _scatter, lay_out(trials), "multiply_adds", "cost")
    names = figure.axes[0].texts
    found = boxes(figure, names)
    assert {name.get_text() for name in names} == {name for name, _, _ in nets}
    assert not any(a.overlaps(b) for a, b in itertools.combinations(found, 2))


@matplotlib.rc_context(_STYLE)
@pytest.mark.parametrize("order", [1, -1])
def test_of_nets_that_are_nearly_as_good_the_better_ones_name_stands_higher(order):
    accuracies = {"a": 0.60, "b": 0.625, "c": 0.66, "d": 0.662, "low": 0.1, "high": 0.95}
    trials = groups([row(name, top1=top1, params=100 if name in "ab" else 900)
                     for name, top1 in list(accuracies.items())[::order]])
    figure = _drawn("title", trials, _scatter, lay_out(trials), "params", "parameters")
    names = figure.axes[0].texts
    height = {name.get_text(): box.y0 for name, box in zip(names, boxes(figure, names),
                                                           strict=True)}
    assert height["a"] < height["b"] and height["c"] < height["d"]


@pytest.mark.filterwarnings("error")  # Matplotlib gives up with a warning.
@matplotlib.rc_context(_STYLE)
@pytest.mark.parametrize("names", [
    ("depth", "width"),
    ("resnet", "mobilenet_v2", "mobilenet_v3", "efficientnet", "convnext"),
    [f"a family of a very long name, {i}" for i in range(8)]])
def test_the_legend_of_equal_cost_stands_in_the_picture_above_the_bars(names):
    trials = groups([row(f"{name}{c}", tags={"family": name, "cost_factor": c},
                         multiply_adds=90 * c) for name in names for c in (1, 2)])
    layout = lay_out(trials)
    figure = _drawn("title", trials, _equal_cost_bars, layout, equal_costs(trials, layout))
    axes, = figure.axes
    legend = axes.get_legend()
    assert len(legend.get_texts()) == len(names)
    inside, around, *bars = boxes(figure, [legend, axes, *axes.patches])
    assert around.x0 < inside.x0 and inside.x1 < around.x1 and inside.y1 < around.y1
    assert inside.y0 > max(bar.y1 for bar in bars) > around.y0 + around.height / 2


def test_bars_of_equal_cost_stand_about_their_tick_and_no_tick_is_above_100_percent():
    """The base and what a search has tried take no room; two seeds' interval reaches 100 %."""
    trials = compound(cloud=3)
    trials += groups([row("r", seed, top1, tags={"family": "resolution", "cost_factor": 4},
                          multiply_adds=360) for seed, top1 in enumerate((0.6, 0.9))])
    layout = lay_out(trials)
    figure = _drawn("title", trials, _equal_cost_bars, layout, equal_costs(trials, layout))
    axes, = figure.axes
    middles = sorted(bar.get_x() + bar.get_width() / 2 for bar in axes.patches)
    assert len(middles) == 5 and np.mean(middles[-3:]) == pytest.approx(axes.get_xticks()[1])
    assert axes.get_ylim()[1] > 100 >= max(axes.get_yticks())


@pytest.mark.filterwarnings("error")
@matplotlib.rc_context(_STYLE)
@pytest.mark.parametrize(("columns", "lines"), [(3, 2), (10, 4), (20, 20)])
def test_the_texts_of_a_heat_map_are_beside_one_another(columns, lines):
    trials = groups([row(f"{i}_{k}", top1=1.0, tags={"lr": 1.1e-5 * 1.5**i, "decay": 1e-5 * 2**k})
                     for i in range(columns) for k in range(lines)])
    figure = _drawn("title", trials, _heat_map, lay_out(trials))
    axes = figure.axes[0]
    found = boxes(figure, [*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts])
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(found))


def test_figures_say_which_trials_stopped_early_beside_those_that_did_not():
    tags = [{"lr": lr, "batch": batch} for batch in (8, 32) for lr in (0.1, 0.2, 0.4)]
    trials = groups([row(str(i), top1=i / 10, tags=tags[i], state="stopped" if i < 4 else "done")
                     for i in range(6)])
    axes = dict(_figures(trials, "title"))["grid"].axes[0]
    assert [text.get_text() for text in axes.texts] == [
        "(0.0)", "(10.0)", "(20.0)", "(30.0)", "40.0", "50.0"]
    assert axes.get_title("left") == "title (4 of 6 trials stopped early)"


def test_learning_curves_have_a_panel_a_family_with_the_base_in_each():
    trials = compound()
    figure = curves_by_series(trials, lay_out(trials), "title")
    legends = [[text.get_text() for text in axes.get_legend().get_texts()]
               for axes in figure.axes]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["depth", "width"]
    assert legends == [["cost factor 1", "cost factor 2", "cost factor 4"]] * 2
    trials = compound(cloud=3)  # Of which three have one cost factor.
    figure = curves_by_series(trials, lay_out(trials), "title")
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "base", "depth2", "depth4"]


def test_names_of_learning_curves_stand_where_no_curve_is():
    curve = {"epoch": [0.0, 5.0, 9.0], "train_top1": [0.1] * 3, "eval_top1": [0.2] * 3}
    trials = groups([row(name, curve=curve) for name in "abcd"])  # They learn next to nothing.
    figure = curves_by_series(trials, lay_out(trials), "title")
    axes, = figure.axes
    legend, *lines = boxes(figure, [axes.get_legend(), *axes.get_lines()])
    assert len(lines) == 8 and not any(map(legend.overlaps, lines))


@pytest.mark.filterwarnings("error")
def test_learning_curves_of_seeds_with_no_epoch_in_common_say_so():
    trials = groups([row(seed=s, curve={"epoch": [1.0 + s], "train_top1": [0.5],
                                        "eval_top1": [0.5]}) for s in range(2)])
    axes, = curves_by_series(trials, lay_out(trials), "title").axes
    assert not axes.get_lines() and axes.get_legend() is None
    assert [text.get_text().split()[:2] for text in axes.texts] == [["no", "epoch"]]


def test_a_curve_of_one_point_is_seen():
    curve = {"epoch": [1.0, 2.0], "train_top1": [0.5, 0.6], "eval_top1": [None, 0.7]}
    trials = groups([row(curve=curve)])
    axes, = curves_by_series(trials, lay_out(trials), "title").axes
    assert {len(line.get_xdata()): line.get_marker() for line in axes.get_lines()} == {
        2: "None", 1: "o"}


def test_a_figure_that_the_trials_no_longer_ask_for_is_removed_and_other_files_stay(tmp_path):
    (tmp_path / "my_grid.png").touch()
    trials = groups([row(f"{x}{y}", tags={"lr": x, "batch": y})
                     for x, y in itertools.product((1, 2), (1, 2, 3))])
    assert save_figures(trials, tmp_path, "title") == ["grid"]
    assert save_figures(trials[:2], tmp_path, "title") == []
    assert [path.name for path in tmp_path.iterdir()] == ["my_grid.png"]


def test_an_axis_is_a_number_that_series_share_not_one_that_comes_out_different_for_all():
    trials = groups([
        row(f"{f}{d}", tags={"family": f, "depth": d, "real": d + (f == "plain") / 10, "year": 1})
        for f in ("plain", "residual") for d in (20, 32, 44)])
    layout = lay_out(trials)
    assert [tag for tag in layout.numbers if is_dimension(trials, layout, tag)] == ["depth"]


def test_a_mean_curve_is_over_seeds_where_all_of_them_measured():
    rows = [row(seed=s, curve={"epoch": [0.5, 1.0, 2.0], "eval_top1": [None, 0.2 + s, last]})
            for s, last in ((0, 0.5), (1, None))]
    x, y = mean_curve(groups(rows)[0], "eval_top1")
    np.testing.assert_array_equal(x, [1.0])
    np.testing.assert_allclose(y, [0.7])


def test_a_run_that_is_over_without_an_accuracy_does_not_count():
    trial, = groups([row(seed=0, top1=0.9), row(seed=1, top1=None)])
    assert [r.seed for r in trial.finished] == [0]
    assert "1 of 2 runs did not finish" in to_markdown([trial], "t")
