"""--job=report: what the runs of a sweep, or of a folder of runs, found."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax import config as config_lib
from cnnjax import sweeps
from cnnjax.analysis import trials as trials_lib
from cnnjax.analysis.trials import Row
from cnnjax.files import write_whole
from cnnjax.jobs import console, workdir
from cnnjax.sweeps import Result, Trial
from cnnjax.train.writers import read_metrics
from cnnjax.types import UserError

REPORT = "report"
CSV, TABLE, PAGE = "trials.csv", "table.md", "index.html"
_CURVE = ("train_top1", "eval_top1")


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Writes FOLDER/report: a CSV, a table, figures as PNG and PDF, and a page.

    Args:
      config: unused; the runs bring theirs.
      folder: of a sweep, or any with ordinary runs in it.
      dry_run: prints what there is to report, and writes nothing.

    Raises:
      UserError: if there are no runs.
    """
    about, results = read_runs(folder)
    results = list(map(_checked, results))
    rows = [row_of(result) for result in results]
    groups = trials_lib.groups(rows)
    finished = sum(row.finished for row in rows)
    stopped = sum(row.finished and row.state == "stopped" for row in rows)
    found = {"trials": len(groups), "runs": len(rows), "finished": finished,
             **({"stopped early": stopped} if stopped else {}),
             **({"not finished": len(rows) - finished} if finished < len(rows) else {})}
    if changed := sweeps.changed_data(results):
        print(f"Warning: {changed}", file=sys.stderr)
    if dry_run:
        console.print_table(f"{folder}: nothing is written", found)
        return 0
    out = folder / REPORT
    workdir.check_writable(out)
    title = _title(about, folder)
    write_whole(out / CSV, trials_lib.to_csv(rows))
    write_whole(out / TABLE, trials_lib.to_markdown(groups, title))
    names = trials_lib.save_figures(groups, out, title)
    named = any(result.trial.name for result in results)
    write_whole(out / PAGE, trials_lib.to_html(groups, title, _about(about, found, folder, named)))
    console.print_table(f"Report of {folder}", found | {
        "page": out / PAGE, "table": out / TABLE, "runs as CSV": out / CSV,
        "figures": ", ".join(f"{name}.png, .pdf" for name in names) or "none: no run has finished"})
    return 0


def read_runs(folder: Path) -> tuple[dict[str, Any], list[Result]]:
    """Returns what sweep.json says and every run of it; or {} and the runs that lie in a folder.

    Raises:
      UserError: if there are neither.
    """
    if (folder / sweeps.SWEEP).exists():
        return sweeps.read(folder)
    # A trial that failed at once, or waits, has no config.
    found = sorted({path.parent for name in (workdir.CONFIG, sweeps.TRIAL)
                    for path in folder.glob(f"**/{name}")})
    if not found:
        raise UserError(f"There is nothing to report in {folder}: neither a sweep nor runs. Name "
                        "the folder of a sweep, or one that holds workdirs: --workdir=DIR.")
    results, names = [], set()
    for path in found:
        result = _result(path, folder)
        while result.trial.name in names:  # Of another folder, whose name is written alike.
            result = dataclasses.replace(result, trial=Trial(result.trial.name + "_"))
        names.add(result.trial.name)
        results.append(result)
    return {}, results


def _result(run_folder: Path, folder: Path) -> Result:
    config = sweeps.json_in(run_folder / workdir.CONFIG) or {}
    name = str(run_folder.relative_to(folder)).replace("/", "-").strip(".") or folder.name
    # Seeds of one experiment in folders of their own stay rows of their own: nothing says that
    # they belong together.
    name = "".join(c if c.isalnum() or c in "._=+-" else "_" for c in name)
    seed = re.fullmatch(r"seed_(\d+)", run_folder.name)  # As a sweep names it.
    return Result(Trial(name), config.get("seed", int(seed[1]) if seed else 0), run_folder,
                  sweeps.json_in(run_folder / sweeps.TRIAL) or {}, config,
                  sweeps.json_in(run_folder / workdir.SUMMARY))


def _checked(result: Result) -> Result:
    """Returns the result; if a file of the run is damaged, with that in its state and on stderr."""
    problems = []
    for name in (workdir.CONFIG, sweeps.TRIAL, workdir.SUMMARY):
        try:
            workdir.read_json(result.folder / name)
        except UserError as error:
            problems.append(str(error))
    if not problems:
        return result
    print(f"launch.py: warning: {' '.join(problems)}", file=sys.stderr)
    return dataclasses.replace(result, state={"state": "unreadable", "message": " ".join(problems)})


def row_of(result: Result) -> Row:
    """Returns a run as a row: its summary, its state, and its learning curve."""
    summary, records = result.summary or {}, read_metrics(result.folder)
    train = next((r for r in reversed(records) if "train_top1" in r), {})
    finished = {"top1": summary.get("top1"), "top5": summary.get("top5"),
                "train_loss": train.get("train_loss"), "train_top1": train.get("train_top1"),
                "examples": summary.get("examples_evaluated"),
                "seconds": summary.get("seconds"),
                "images_per_second": summary.get("images_per_second")} if result.done else {}
    # True and False are 1 and 0 to Python, and no axis.
    tags = {key: str(value) if isinstance(value, bool) else value
            for key, value in result.trial.tags.items()}
    return Row(
        name=result.trial.name or result.folder.parent.name, seed=result.seed,
        state=_state(result, records), tags=tags, overrides=result.trial.overrides,
        model=summary.get("model") or _configured(result.config, "model"),
        data=summary.get("data") or _configured(result.config, "data"),
        params=summary.get("params"), multiply_adds=summary.get("multiply_adds"),
        steps=summary.get("steps") or (records[-1].get("step") if records else None),
        message=result.state.get("message") or _why(summary), curve=_curve(records),
        **{key: value for key, value in finished.items() if _number(value)})


def _state(result: Result, records: list[dict[str, Any]]) -> str:
    """Returns how far a run is; a summary that is there counts for more than what was noted."""
    status = (result.summary or {}).get("status")
    if result.done or (status and not sweeps.is_over(result.summary)):
        return status
    if result.state.get("state") not in (None, "done"):
        return result.state["state"]
    return "unfinished" if records or result.config else "not started"


def _why(summary: Mapping[str, Any]) -> str:
    if summary.get("status") != "non_finite":
        return ""
    return (f"The loss was not finite at step {summary.get('steps')}, where the learning rate was "
            f"{summary.get('lr', math.nan):.4g}.")


def _configured(config: Mapping[str, Any], section: str) -> str:
    return config_lib.flatten(config).get(f"{section}.name", "")


def _curve(records: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Returns the records in which training or evaluation measured something, field by field."""
    kept = [r for r in records if "epoch" in r and any(_number(r.get(key)) for key in _CURVE)]
    return {"epoch": [r["epoch"] for r in kept],
            **{key: [r.get(key) if _number(r.get(key)) else None for r in kept] for key in _CURVE}}


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _title(about: Mapping[str, Any], folder: Path) -> str:
    experiment = about.get("experiment")
    if not experiment:
        return folder.resolve().name
    file, _, preset = str(experiment).partition(":")
    preset = preset or about.get("preset") or ""
    return Path(file).stem.replace("_", " ") + (f": {preset}" if preset else "")


def _about(about: Mapping[str, Any], found: Mapping[str, int], folder: Path, named: bool) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in found.items())
    ran = f" The sweep: {_command(about, folder, named)}." if about.get("experiment") else ""
    page = shlex.join(["python", "launch.py", "--job=report", f"--workdir={folder}"])
    return f"{counts}.{ran} This page: {page}"


def _command(about: Mapping[str, Any], folder: Path, named: bool) -> str:
    """Returns what was typed for a sweep, or if its trial has no name for seeds of a run."""
    seeds = about.get("seeds") or [0]
    given = dict(about.get("overrides", {})) | about.get("halving", {}) | (
        {"seed": seeds[0]} if seeds[0] else {}) | ({"seeds": len(seeds)} if len(seeds) > 1 else {})
    return shlex.join(["python", "launch.py", f"--config={about['experiment']}",
                       *(["--job=sweep"] if named else []),
                       *(f"--config.{key}={value}" for key, value in given.items()),
                       f"--workdir={folder}"])
