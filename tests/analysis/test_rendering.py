"""Arrays as pictures and charts."""

import io

import matplotlib.image
import numpy as np
import pytest

from cnnjax.analysis import charts, embedding, rendering
from cnnjax.types import UserError


def test_small_pictures_are_enlarged_pixel_by_pixel_and_large_ones_averaged():
    small = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    found = rendering.fitted(small, 9)
    assert found.shape == (8, 8, 3)
    np.testing.assert_array_equal(found[::4, ::4], small)
    board = np.zeros((40, 20, 3), np.uint8)
    board[::2] = 200
    assert rendering.fitted(board, 20).shape == (20, 10, 3)
    assert abs(int(rendering.fitted(board, 20).mean()) - 100) <= 1
    assert rendering.pooled(np.array([[1.0, -1.0], [3.0, 5.0]]), 1).item() == 2


@pytest.mark.parametrize(("channels", "shown", "note"), [
    (1, (0, 0, 0), ""), (3, (0, 1, 2), ""), (2, (0, 1, None), "two channels as red and green"),
    (4, (0, 1, 2), "first three of 4 channels"), (13, (0, 1, 2), "first three of 13 channels")])
def test_images_of_any_number_of_channels_have_a_picture(channels, shown, note):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, channels), np.uint8)
    black = np.zeros((4, 5), np.uint8)
    np.testing.assert_array_equal(rendering.as_rgb(image), np.stack(
        [black if c is None else image[..., c] for c in shown], -1))
    np.testing.assert_array_equal(rendering.as_rgb(image / 255), rendering.as_rgb(image))
    assert note in rendering.colors_shown(channels) and bool(note) == (channels not in (1, 3))


def test_signed_maps_are_red_above_zero_and_blue_below():
    red, white, blue = rendering.signed(np.array([[2.0, 0.0, -2.0]]))[0].astype(int)
    assert red[0] > red[2] + 50 and blue[2] > blue[0] + 50 and white.min() > 240
    assert rendering.signed(np.zeros((2, 2))).min() > 240


def test_a_map_over_an_image_leaves_it_grey_where_the_map_is_zero():
    image = np.full((2, 2, 3), (30, 60, 90), np.uint8)
    found = rendering.over(image, np.array([[0.0, 1.0], [0.0, 0.0]]))
    assert found[0, 0].tolist() == [60, 60, 60]
    assert found[0, 1, 0] > found[0, 1, 2] + 30


def test_a_frame_is_drawn_inside_its_box_and_clipped():
    blank = np.zeros((10, 10, 3), np.uint8)
    found = rendering.framed(blank, (2, 3, 5, 4), (9, 9, 9), 1)[..., 0] == 9
    rows, cols = np.nonzero(found)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (2, 6, 3, 6)
    assert found.sum() == 2 * 4 + 2 * 3 and not blank.any()
    assert (rendering.framed(blank, (-5, -5, 30, 30), (9, 9, 9), 1)[..., 0] == 9).sum() == 36


@pytest.mark.parametrize("chart", [
    lambda: charts.line_chart({"a": ([0, 1], [0, 1]), "b": ([0, 1], [1, 0])}, "x", "y"),
    lambda: charts.matrix_chart(np.eye(3), "abc", "abc", hide_zero=True),
    lambda: charts.scatter_chart(np.eye(12)[:, :2], np.arange(12), [f"c{i}" for i in range(12)])])
def test_a_chart_is_the_same_png_every_time(chart):
    first, again = chart(), chart()
    assert first == again
    picture = matplotlib.image.imread(io.BytesIO(first))
    assert picture.shape[1] == round(charts.WIDTH * charts.DPI) and picture.std() > 0.01


ODD = ["_background", "US$5 to US$10", r"$\male$", "a very long name of a class",
       "caf\udce9"]  # Its last byte is not UTF-8.


@pytest.mark.parametrize("draw", [
    lambda names: charts.line_chart({n: ([0, 1], [0, i]) for i, n in enumerate(names)}, "x", "y"),
    lambda names: charts.matrix_chart(np.eye(5), names, names),
    lambda names: charts.scatter_chart(np.eye(5)[:, :2], np.arange(5), names)])
def test_names_are_drawn_as_they_stand(draw, monkeypatch):
    drawn, png = [], charts._png

    def look(figure):
        axes = figure.axes[0]
        legend = figure.legends[0] if figure.legends else axes.get_legend()
        drawn.extend(legend.get_texts() if legend else axes.get_xticklabels())
        return png(figure)

    monkeypatch.setattr(charts, "_png", look)
    draw(ODD)
    plain = [text._preprocess_math(text.get_text()) for text in drawn]
    # Zero-width space, no mathematics, and cut where the chart cuts.
    assert not any(mathematics for _, mathematics in plain)
    assert [name.strip("\u200b") for name, _ in plain][:3] == ODD[:3]
    assert plain[3][0] in (ODD[3], "a very long name …")
    assert plain[4][0] == r"caf\udce9"


def test_no_line_runs_through_the_names_of_the_lines(monkeypatch):
    figures, png = [], charts._png
    monkeypatch.setattr(charts, "_png", lambda figure: figures.append(figure) or png(figure))
    # They cover the whole of the axes.
    charts.line_chart({f"stage{i}": (np.arange(20), (-1) ** np.arange(20)) for i in range(9)},
                      "shift (pixels)", "relative change")
    figure, = figures
    legend, = [*figure.legends, *filter(None, [figure.axes[0].get_legend()])]
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_tightbbox())


def test_groups_without_points_take_no_colours(monkeypatch):
    figures, png = [], charts._png
    monkeypatch.setattr(charts, "_png", lambda figure: figures.append(figure) or png(figure))
    charts.scatter_chart(np.eye(3)[:, :2], [900, 950, 999], [f"c{i}" for i in range(1000)])
    charts.scatter_chart(np.eye(3)[:, :2], [0, 1, 2], [f"c{i}" for i in (900, 950, 999)])
    colours = [[tuple(p.get_facecolor()[0]) for p in figure.axes[0].collections[1:]]
               for figure in figures]
    assert colours[0] == colours[1] and len(set(colours[0])) == 3


def test_a_map_of_too_few_examples_is_a_user_error():
    with pytest.raises(UserError, match="3 examples make no map"):
        embedding.umap(np.zeros((3, 4)))


@pytest.mark.slow
def test_umap_keeps_two_far_groups_apart():
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(0, 1, (30, 8)), rng.normal(20, 1, (30, 8))])
    found, again = embedding.umap(features), embedding.umap(features)
    np.testing.assert_array_equal(found, again)
    a, b = found[:30], found[30:]
    gap = np.linalg.norm(a[:, None] - b[None], axis=-1).min()
    assert gap > max(np.linalg.norm(g - g.mean(0), axis=1).mean() for g in (a, b))
