"""The trials of a sweep as a table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cnnjax.analysis.trials.rows import COSTS, Group, Row, Spread, columns, fronts


def to_markdown(trials: Sequence[Group], title: str) -> str:
    """Returns a table of a line a trial, and below it every run that did not finish.

    Accuracies are mean ± standard deviation over seeds, and beside them the 95 % interval of the
    mean; a trial on a Pareto front is marked with the cost of which it is.
    """
    tags = columns([row for trial in trials for row in trial.rows], lambda row: row.tags)
    front = fronts(trials)
    header = ["trial", *tags, "parameters", "multiply-adds", "seconds", "seeds", "top-1 (%)",
              "95 % interval", "top-5 (%)", "training top-1 (%)", "Pareto front", "runs"]
    right = {"parameters", "multiply-adds", "seconds", "seeds", "top-1 (%)", "95 % interval",
             "top-5 (%)", "training top-1 (%)"}
    lines = [f"# {title}", "", _line(header),
             _line(["---:" if name in right else "---" for name in header])]
    for i, trial in enumerate(trials):
        top1 = trial.spread("top1")
        lines.append(_line([
            trial.name, *(_text(trial.tags.get(key)) for key in tags), _count(trial, "params"),
            _count(trial, "multiply_adds"), _text(trial.spread("seconds").mean, ".1f"), top1.n,
            percent(top1), interval(top1), percent(trial.spread("top5")),
            percent(trial.spread("train_top1")),
            ", ".join(field.replace("_", "-") for field in COSTS if i in front[field]),
            ", ".join(f"{count} {state}" for state, count in trial.states.items())]))
    lines += ["", "mean ± standard deviation over seeds; the interval is that of the mean, by "
              "Student's t. Training top-1 is that of the last logged steps, on images as they "
              "were augmented.", ""]
    return "\n".join(lines + _unfinished([row for trial in trials for row in trial.rows]))


def percent(found: Spread) -> str:
    """Returns "91.25 ± 0.31", or the value alone below two seeds."""
    if found.mean is None:
        return ""
    return f"{100 * found.mean:.2f}" + (f" ± {100 * found.std:.2f}" if found.std is not None
                                        else "")


def interval(found: Spread) -> str:
    """Returns "90.48 to 92.02", or nothing below two seeds."""
    if found.half is None:
        return ""
    return f"{100 * (found.mean - found.half):.2f} to {100 * (found.mean + found.half):.2f}"


def _unfinished(rows: Sequence[Row]) -> list[str]:
    others = [row for row in rows if not row.finished]
    if not others:
        return [f"All {len(rows)} runs finished.", ""]
    lines = [f"## {len(others)} of {len(rows)} runs did not finish", "",
             _line(["trial", "seed", "state", "steps", "message"]), _line(["---"] * 5)]
    return [*lines, *(_line([row.name, row.seed, row.state, _text(row.steps),
                             last_line(row.message)]) for row in others), ""]


def last_line(message: str) -> str:
    """Returns the last line of a message, where a traceback says what went wrong."""
    return (message.strip().splitlines() or [""])[-1]


def _count(trial: Group, field: str) -> str:
    mean = trial.spread(field).mean
    return "" if mean is None else f"{round(mean):,}"


def _text(value: Any, form: str = "") -> str:
    return "" if value is None else format(value, form)


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ")
                             for cell in cells) + " |"
