"""Names in scripts that Matplotlib's own font lacks."""

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib import font_manager

from cnnjax.analysis import charts, fonts
from cnnjax.jobs import contact_sheet

LOST = "猫犬 cat"


@pytest.fixture(autouse=True)
def _only_those_that_matplotlib_brings(monkeypatch):
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [
        font for font in font_manager.fontManager.ttflist if "mpl-data" in font.fname])
    monkeypatch.setattr(fonts, "_told", set())
    forget()
    yield
    forget()


def forget():
    fonts._installed.cache_clear()
    fonts._fonts.cache_clear()


def families(draw, monkeypatch):
    """Returns {text: families} of a chart as it was saved."""
    found, png = {}, charts._png

    def look(figure):
        content = png(figure)
        axes = figure.axes[0]
        for text in (*axes.get_xticklabels(), axes.xaxis.label):
            found[text.get_text()] = text.get_fontfamily()
        return content

    monkeypatch.setattr(charts, "_png", look)
    draw()
    return found


def test_a_text_gets_the_fonts_that_have_what_matplotlibs_own_lacks(monkeypatch):
    odd = "ⓐ"
    found = families(lambda: charts.matrix_chart(np.eye(2), ["plain", odd], ["plain", odd], odd),
                     monkeypatch)
    assert found == {"plain": ["sans-serif"], odd: ["sans-serif", "STIXGeneral"]}
    assert "STIXGeneral" in fonts.for_pillow(odd, 10).path
    assert Path(fonts.for_pillow("plain é", 10).path).name == "DejaVuSans.ttf"


def test_what_no_font_has_is_said_once_and_not_for_every_glyph(caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "cnnjax"):
        warnings.simplefilter("error")
        for _ in range(2):
            charts.matrix_chart(np.eye(2), ["a", LOST], ["a", LOST], LOST)
            charts.line_chart({LOST: ([0, 1], [0, 1])}, "x", LOST)
            contact_sheet.draw([(np.zeros((8, 8, 3), np.uint8), LOST, "鳥")])
    assert [record.getMessage() for record in caplog.records] == [
        "No installed font has 犬 猫: in pictures they are boxes. Install one that has, such as "
        "Noto's (apt install fonts-noto-cjk, or fonts-noto)."]


def test_a_font_that_was_installed_after_matplotlib_made_its_list_is_found(monkeypatch):
    stix, = [font.fname for font in font_manager.fontManager.ttflist
             if font.fname.endswith("STIXGeneral.ttf")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [
        font for font in font_manager.fontManager.ttflist if font.name != "STIXGeneral"])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [stix])
    assert fonts.fallbacks(["ⓐ"]) == (("STIXGeneral", stix),)
    assert charts.line_chart({"ⓐ": ([0, 1], [0, 1])}, "x", "y").startswith(b"\x89PNG")


def test_each_font_is_opened_once_however_many_texts_need_it(monkeypatch):
    opened, get_font = [], font_manager.get_font
    monkeypatch.setattr(font_manager, "get_font", lambda file: opened.append(file) or get_font(
        file))
    found = [fonts.fallbacks([text])[0][0] for text in ("ⓐ", "ⓑ", "ⓒ")]
    assert found == ["STIXGeneral"] * 3
    stix, = {file for file in opened if file.endswith("STIXGeneral.ttf")}
    assert opened.count(stix) == 1
