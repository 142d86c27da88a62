"""Calibration against formulas written out by hand, one example at a time."""

import math
import tracemalloc

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnjax.analysis import calibration, charts, mistakes
from cnnjax.jobs.evaluate import _rows
from cnnjax.types import UserError


@pytest.fixture(scope="module")
def answers():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 600)
    return 3 * (rng.normal(size=(600, 4)) + 1.2 * np.eye(4)[labels]), labels


def probabilities(row):
    exponentials = [math.exp(z) for z in row]
    return [e / sum(exponentials) for e in exponentials]


def test_ece_is_the_weighted_gap_of_the_bins(answers):
    bins = [[] for _ in range(15)]
    for row, label in zip(*answers, strict=True):
        p = probabilities(row)
        best = p.index(max(p))
        number = next(m for m in range(15) if m / 15 < p[best] <= (m + 1) / 15 + 1e-12)
        bins[number].append((best == label, p[best]))
    by_hand = sum(abs(sum(r for r, _ in b) - sum(c for _, c in b)) for b in bins) / len(answers[1])
    found = calibration.reliability(*answers)
    assert found.ece == pytest.approx(by_hand, rel=1e-9)
    assert found.count.tolist() == [len(b) for b in bins]


def test_the_likelihood_is_the_mean_of_minus_the_logarithm(answers):
    by_hand = -sum(math.log(probabilities(row)[label])
                   for row, label in zip(*answers, strict=True)) / len(answers[1])
    assert calibration.negative_log_likelihood(*answers) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize(("function", "name"), [
    (calibration.reliability, "reliability"), (calibration.calibration_report, "reliability"),
    (calibration.negative_log_likelihood, "negative_log_likelihood"),
    (calibration.fit_temperature, "fit_temperature"),
    (calibration.temperature_scaled, "temperature_scaled")])
def test_no_calibration_is_measured_of_no_examples_or_of_labels_that_are_not_theirs(
        function, name):
    logits = np.zeros((3, 4))
    for rows, labels, message in (
            (0, [], "there are no examples"), (3, [0, 1], r"labels \(2,\) and logits \(3, 4\)"),
            (2, [0, 1, 2], "give as many"), (2, [0, 4], "labels has 4; of 4 classes"),
            (2, [-1, 0], "labels has -1")):
        with pytest.raises(UserError, match=f"{name}: .*{message}"):
            function(logits[:rows], np.array(labels, int))


def test_where_all_is_right_there_is_no_temperature_to_fit(answers):
    logits, _ = answers
    assert calibration.fit_temperature(logits, logits.argmax(-1)) == 1.0
    labels = logits.argmax(-1)
    labels[0] = (labels[0] + 1) % logits.shape[-1]  # The odd half has no error to learn from.
    scaled = calibration.temperature_scaled(logits, labels)
    np.testing.assert_array_equal(scaled[::2], logits[::2])
    assert not np.allclose(scaled[1::2], logits[1::2])


def test_the_temperature_is_the_best_of_a_fine_grid_and_follows_the_scale(answers):
    logits, labels = answers
    grid = np.exp(np.linspace(-3, 3, 2001))
    best = min(grid, key=lambda t: calibration.negative_log_likelihood(logits / t, labels))
    assert calibration.fit_temperature(logits, labels) == pytest.approx(best, rel=2e-3)
    assert calibration.fit_temperature(5 * logits, labels) == pytest.approx(5 * best, rel=2e-3)


def test_scaled_logits_have_never_seen_their_own_labels(answers):
    logits, labels = answers
    scaled = calibration.temperature_scaled(logits, labels)
    other = labels.copy()
    other[::2] = (other[::2] + 1) % 4
    changed = calibration.temperature_scaled(logits, other)
    np.testing.assert_array_equal(scaled[::2], changed[::2])
    assert not np.allclose(scaled[1::2], changed[1::2])


def test_the_confusion_matrix_counts_pairs_and_classes_without_examples_have_no_accuracy(
        tmp_path):
    logits = np.eye(4)[[0, 1, 1, 2, 0]] * 9.0
    labels = np.array([0, 1, 0, 2, 0])
    report = calibration.calibration_report(logits, labels)
    assert report["confusion"] == [[2, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert report["per_class_accuracy"] == [pytest.approx(2 / 3), 1.0, 1.0, None]
    assert report["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert calibration.most_confused(logits, labels, "abcd", 5) == [
        {"class": "a", "taken_for": "b", "count": 1}]
    calibration.plot_calibration(report, ("a", "b", "c", "d"), str(tmp_path / "a.png"), "title")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_a_confusion_of_half_a_percent_is_seen_beside_those_that_are_right(tmp_path, monkeypatch):
    labels = np.repeat([0, 1], 200)
    said = np.where(np.arange(400) == 0, 1, labels)  # One of 200.
    shown = []
    for name in ("imshow", "text"):
        draw = getattr(Axes, name)
        monkeypatch.setattr(Axes, name, lambda *of, draw=draw, **how: shown.append(
            draw(*of, **how)) or shown[-1])
    calibration.plot_calibration(calibration.calibration_report(np.eye(2)[said] * 9.0, labels),
                                 ("a", "b"), str(tmp_path / "a.png"), "title")
    charts.matrix_chart(mistakes.confusion_matrix(labels, said, 2), "ab", "ab", hide_zero=True,
                        power=calibration.ROOT)
    for picture in (shown[0], shown[1]):
        (right, error), (none, _) = picture.to_rgba(picture.get_array())[..., 0]  # The red.
        assert none - error > 0.15 and error - right > 0.3
    assert {word.get_text(): word.get_color() for word in shown[2:]} == {
        "199": "white", "1": "black", "200": "white"}


def test_a_report_takes_little_memory_beside_the_logits(monkeypatch):
    logits = np.random.default_rng(0).normal(size=(4000, 100)).astype(np.float32)
    labels = np.arange(4000) % 100
    whole = calibration.calibration_report(logits, labels)
    monkeypatch.setattr(calibration, "_PART", 10_000)
    tracemalloc.start()
    report = calibration.calibration_report(logits, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report == whole and peak < 3 * logits.nbytes  # Those that are scaled are in float64.


def test_a_report_of_very_many_classes_takes_no_matrix_of_all_of_them(tmp_path):
    """50,000 squared numbers would be 20 GB: groups of 50 classes share a row."""
    labels, said = np.array([0, 49, 50, 49_999]), np.array([0, 49_999, 50, 49_999])
    logits = np.zeros((4, 50_000))
    logits[np.arange(4), said] = 9.0
    report = calibration.calibration_report(logits, labels)
    matrix = np.array(report["confusion"])
    assert matrix.shape == (1000, 1000) and matrix.sum() == 4
    assert (matrix[0, 0], matrix[0, 999], matrix[1, 1], matrix[999, 999]) == (1, 1, 1, 1)
    assert [report["per_class_accuracy"][i] for i in (0, 1, 49, 50, 49_999)] == [1, None, 0, 1, 1]
    names = tuple(map(str, range(50_000)))
    assert calibration.most_confused(logits, labels, names, 5) == [
        {"class": "49", "taken_for": "49999", "count": 1}]
    calibration.plot_calibration(report, names, str(tmp_path / "a.png"), "title")


def test_no_temperature_stands_beside_an_error_that_was_measured_at_others(tmp_path, monkeypatch):
    # All are said at 0.9. Of the even examples 9 in 10 are right, which is T = 1; of the odd ones
    # 6 in 10, so that each half is off by 0.3 at the other's. All together, 3 in 4, want T = 2.
    right = np.ravel([[i % 10 < 9, i % 10 < 6] for i in range(100)])
    logits, labels = np.tile([np.log(9), 0.0], (200, 1)), np.where(right, 0, 1)
    report = calibration.calibration_report(logits, labels)
    assert [report[key] for key in ("ece", "ece_scaled", "temperature")] == pytest.approx(
        [0.15, 0.3, 2], abs=1e-4)
    assert calibration.reliability(logits / 2, labels).ece == pytest.approx(0)
    titles = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: titles.extend(
        axes.get_title() for axes in figure.axes))
    calibration.plot_calibration(report, ("a", "b"), str(tmp_path / "a.png"), "title")
    assert titles[0] == "ECE 15.00%, after temperature scaling 30.00%"
    rows = _rows(report | {"class_names": ["a", "b"]})
    assert "30.00%" in rows["calibration"] and "2.000" not in rows["calibration"]
    assert rows["temperature"] == "2.000, fitted on all examples"


def test_no_bar_of_the_reliability_diagram_is_hidden_behind_the_legend(answers, tmp_path,
                                                                       monkeypatch):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig",
                        lambda figure, *a, **k: figures.append(figure) or save(figure, *a, **k))
    calibration.plot_calibration(calibration.calibration_report(*answers), tuple("abcd"),
                                 str(tmp_path / "a.png"), "title")
    left, _, below = figures[0].axes[:3]
    legend = below.get_legend().get_window_extent()
    for axes in (left, below):
        assert not legend.overlaps(axes.get_window_extent())
    assert not legend.overlaps(below.xaxis.get_tightbbox())
    assert {text.get_text() for text in below.get_legend().get_texts()} == {
        "accuracy", "mean confidence of a bin"}
    assert figures[0].bbox.containsx(legend.x0) and figures[0].bbox.containsy(legend.y0)


def test_the_report_is_of_these_functions_before_and_after_scaling(answers):
    report, scaled = calibration.calibration_report(*answers), calibration.temperature_scaled(
        *answers)
    assert report["ece"] == calibration.reliability(*answers).ece
    assert report["ece_scaled"] == calibration.reliability(scaled, answers[1]).ece < report["ece"]
    assert report["nll_scaled"] == calibration.negative_log_likelihood(scaled, answers[1]) < (
        report["nll"])


def test_a_bin_of_one_example_does_not_look_like_one_of_hundreds(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    logits = np.array([[0.5, 0.0]] + [[9.0, 0.0]] * 199)  # One at 0.62, in the tenth bin.
    calibration.plot_calibration(calibration.calibration_report(logits, np.zeros(200, int)),
                                 ("a", "b"), str(tmp_path / "a.png"), "title")
    left, _, below = figures[0].axes[:3]
    assert [bar.get_height() for bar in left.patches if bar.get_height()] == [1, 1]
    assert [(round(15 * bar.get_x()), bar.get_height()) for bar in below.patches
            if bar.get_height()] == [(9, 0.5), (14, 99.5)]
