"""The comparison of models: its numbers, and that each published figure says what it is of."""

import dataclasses
import re

import pytest

import cnnjax
from cnnjax.analysis import published
from cnnjax.analysis.comparison import compare, format_comparison
from cnnjax.analysis.published import FIGURES, IDEAS, idea
from cnnjax.models import lookup
from cnnjax.types import UserError
from cnnjax.weights.published import table


def test_every_published_figure_is_of_a_model_of_the_table():
    assert set(FIGURES) <= set(cnnjax.list_models())


def test_every_model_of_the_table_has_an_idea():
    assert [name for name in cnnjax.list_models() if not idea(name)] == []
    assert idea("nothing of the kind") == ""


@pytest.mark.parametrize(("name", "words"), [
    ("resnet50", "shortcut"), ("plain20_cifar", "without"), ("resnetv2_50", "before"),
    ("seresnet50", "gates"), ("wide_resnet50_2", "wider"), ("tf_efficientnet_lite0", "without"),
    ("efficientnet_v2_s", "fused"), ("tf_efficientnetv2_s", "fused"), ("vgg16_bn", "batch norm")])
def test_the_first_pattern_that_fits_gives_the_idea(name, words):
    assert words in idea(name)


def test_figures_are_percentages_with_the_model_the_test_and_the_source():
    for figures in FIGURES.values():
        for figure in figures:
            assert figure.top1 or figure.top5
            assert all(v is None or 50 < v < 100 for v in (figure.top1, figure.top5))
            assert any(word in figure.what for word in (
                "torchvision", "arXiv", "LeCun", "ILSVRC", "authors", "paper"))
            if "% error" in figure.what:
                error = float(re.search(r"([\d.]+) % error", figure.what)[1])
                assert round(100 - error, 2) == (figure.top5 or figure.top1)


def test_what_torchvision_has_weights_of_has_their_top_1_and_top_5():
    there = {row.model for row in table() if row.tag == "IMAGENET1K_V1"}
    assert there == published._V1.keys()
    for name in there:
        figure = next(f for f in FIGURES[name] if f.what == "torchvision's weights, V1")
        assert 50 < figure.top1 < figure.top5 < 100
    first, second, _ = FIGURES["resnet50"]
    assert (first.top5, second.top5) == (92.86, 95.43)


def test_competition_entries_say_that_they_are_ensembles():
    entries = [figure for figures in FIGURES.values() for figure in figures
               if "ILSVRC" in figure.what]
    assert {round(100 - figure.top5, 1) for figure in entries} == {16.4, 7.3, 6.7, 3.6}
    assert all(figure.what.startswith("an ensemble of") for figure in entries)


def test_the_famous_models_have_the_famous_sizes():
    rows = {row.name: row for row in compare(["lenet5", "resnet50", "resnet20_cifar"])}
    assert (rows["lenet5"].year, rows["lenet5"].params, rows["lenet5"].depth) == (1998, 60_806, 5)
    row = rows["resnet50"]
    assert (row.year, row.depth, row.params, row.field) == (2015, 50, 25_557_032, 427)
    assert round(row.macs / 1e9, 6) == 4.089184
    assert rows["resnet20_cifar"].figures[0].top1 == 91.25


@pytest.mark.slow
def test_every_model_of_the_table_can_be_compared():
    rows = compare(cnnjax.list_models())
    assert all(row.depth and row.field and row.params and row.macs for row in rows)
    assert [row.input_size for row in rows] == [lookup(row.name).input_size for row in rows]


def test_each_figure_has_a_line_of_its_own_and_an_unknown_one_an_empty_cell(monkeypatch):
    monkeypatch.setitem(FIGURES, "simple_cnn", ())
    rows = compare(["resnet50", "simple_cnn"])
    lines = format_comparison(rows).splitlines()
    head = lines[0]
    figures = [line[head.index("top-1") - 2:head.index("idea")].split() for line in lines[1:5]]
    assert [cells[0] for cells in figures[:3]] == ["76.13", "80.86", "80.4"]
    assert figures[3] == []
    assert lines[1].startswith("resnet50 ") and lines[2].startswith(" ")
    assert lines[4].startswith("simple_cnn")


def test_a_model_about_which_nothing_is_published_still_has_a_row():
    row = compare(["plain32_cifar"])[0]
    assert row.figures == () and row.depth == 32
    assert format_comparison([dataclasses.replace(row, depth=None, field=None, year=None)])


def test_an_unknown_model_is_a_user_error():
    with pytest.raises(UserError, match="no model"):
        compare(["resnet51"])


def test_ideas_are_short_enough_for_a_column():
    assert max(map(len, IDEAS.values())) < 80
