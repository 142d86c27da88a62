"""What the tables of a run are written with."""

import functools
import io

import pytest
from rich.console import Console

from cnnjax.jobs import console


@pytest.mark.parametrize("seconds,text", [
    (0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1:00"), (3599.4, "59:59"), (3599.6, "1:00:00")])
def test_a_duration_that_rounds_to_a_minute_or_an_hour_is_one(seconds, text):
    assert console.duration(seconds) == text


def test_tables_print_what_looks_like_markup_as_it_is(capsys):
    console.print_table("w[/old]", {"file": "0[copy].png", "class": ":smile:"})
    out = capsys.readouterr().out
    assert "w[/old]" in out and "0[copy].png" in out and ":smile:" in out


def on_terminal(width, monkeypatch):
    """Returns the display of a run on a terminal of that width, and what is printed there."""
    out = io.StringIO()
    terminal = Console(file=out, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(console, "Progress", functools.partial(console.Progress, console=terminal))
    display = console.Display("bar", 150_000, 0, 64)
    return display, out


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_narrow_terminal_costs_what_was_measured_and_not_the_step(width, monkeypatch):
    display, out = on_terminal(width, monkeypatch)
    display.record(36_123, {"epoch": 23.4, "train_loss": 2.2684, "train_top1": 0.5, "lr": 0.0125,
                            "images_per_second": 12_345.6})
    display.step(36_123)
    display._progress.refresh()
    display.close()
    line = [line for line in out.getvalue().splitlines() if "step" in line][-1]
    assert " 36123/150000 " in line and "ETA -:--:--" in line
    assert ("loss 2.2684  top1 0.5000  images/s 12,346" in line) == (width >= 80)
    assert ("epoch 23.4  lr 0.0125" in line) == (width == 200)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_of_an_evaluation_ends_between_a_name_and_its_number(width, monkeypatch):
    display, out = on_terminal(width, monkeypatch)
    display.record(36_123, {"train_loss": 2.2684, "train_top1": 0.5, "images_per_second": 12_345.6,
                            "eval_loss": 1.2345, "eval_top1": 0.625, "epoch": 23.4, "lr": 0.0125})
    display.close()
    fields = [field for line in out.getvalue().splitlines()
              for field in line.rpartition("\x1b[2K")[2].strip().split("  ")]
    assert {"step 36,123", "loss 2.2684", "images/s 12,346", "eval loss 1.2345",
            "eval top1 0.6250", "epoch 23.4", "lr 0.0125"} <= set(fields)


def test_the_curve_of_the_learning_rate_is_one_line_on_80_columns(monkeypatch, capsys):
    monkeypatch.setattr(console, "stdout", lambda: Console(width=80))
    console.print_table("Dry run", {
        "memory of a step": "", "learning rate": console.sparkline(lambda step: step / 99, 100)})
    curve, ends = capsys.readouterr().out.splitlines()[-3:-1]
    assert curve.count("█") > 5 and curve.strip("│ ").endswith("█")
    assert ends.strip("│ ") == "from 0 over 1 to 1"


def test_the_time_left_is_that_of_the_steps_without_the_compilation_before_them(monkeypatch,
                                                                                capsys):
    now = [0.0]
    monkeypatch.setattr(console.time, "perf_counter", lambda: now[0])
    display, lines = console.Display("plain", 100, 10, 64), []
    # The first call compiles for a minute; a step takes half a second.
    for step, now[0] in ((11, 60.0), (12, 60.5), (31, 70.0)):
        display.step(step)
        display.record(step, {"train_loss": 1.0})
        lines += capsys.readouterr().out.splitlines()
    assert lines == ["step 11/100  loss 1.0000", "step 12/100  loss 1.0000  ETA 44.0 s",
                     "step 31/100  loss 1.0000  ETA 34.5 s"]
