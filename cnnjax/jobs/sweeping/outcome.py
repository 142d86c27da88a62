"""What a sweep comes to: SWEEP/summary.json, and a table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from cnnjax import sweeps
from cnnjax.jobs import console, workdir
from cnnjax.jobs.sweeping import trial as trial_lib
from cnnjax.jobs.sweeping.local import SUBMITIT
from cnnjax.sweeps import Result


def report(folder: Path, experiment: str, results: list[Result]) -> int:
    """Writes summary.json, prints a table and what failed, and returns how many failed."""
    summary = summarize(experiment, results)
    # As it was, if nothing has changed: a finished sweep can be run again.
    if workdir.read_json(folder / workdir.SUMMARY) != summary:
        workdir.write_json(folder / workdir.SUMMARY, summary)
    _print(folder, summary)
    if changed := sweeps.changed_data(results):
        print(f"Warning: {changed}", file=sys.stderr)
    failed = [r for r in results if r.state.get("state") == "failed"]
    for result in failed:
        print(f"\n{result.folder} failed (exit code {result.state.get('exit_code')}, "
              f"{result.state.get('attempts', 0)} attempts):\n{result.state.get('message')}",
              file=sys.stderr)
    if failed:
        submitit = (f", or in {SUBMITIT} of the sweep's if they never began"
                    if (folder / SUBMITIT).exists() else "")
        print(f"\n{len(failed)} of {len(results)} runs failed; all they said is in "
              f"{trial_lib.STDERR} of their folders{submitit}. The same command tries them again.",
              file=sys.stderr, flush=True)
    return len(failed)


def summarize(experiment: str, results: list[Result]) -> dict[str, Any]:
    """Returns counts, and for each trial mean, standard deviation and interval over its seeds."""
    states = [r.state.get("state") for r in results]
    trials: dict[str, list[Result]] = {}
    for result in results:
        trials.setdefault(result.trial.name, []).append(result)
    rows = [_row(runs) for runs in trials.values()]
    about = {"status": "failed" if "failed" in states else "done", "experiment": experiment,
             "seeds": sorted({r.seed for r in results}), "runs": len(results),
             "done": states.count("done"), "failed": states.count("failed"),
             "seconds": round(sum(r.state.get("seconds", 0.0) for r in results), 3)}
    if list(trials) == [""]:  # The seeds of one run.
        row = rows[0]
        return about | {key: value for key, value in row.items()
                        if key not in ("name", "overrides", "tags", "stopped_early", *about)}
    return about | {"trials": rows}


def _row(runs: list[Result]) -> dict[str, Any]:
    trial = runs[0].trial
    summaries = [r.summary for r in runs if r.done]
    first = summaries[0] if summaries else {}
    return {"name": trial.name, "overrides": dict(trial.overrides), "tags": dict(trial.tags),
            **{key: first.get(key) for key in ("model", "data", "params", "multiply_adds")},
            "failed": sum(r.state.get("state") == "failed" for r in runs),
            # By successive halving: its accuracy is that of a part of the run.
            "stopped_early": any(r.state.get("stopped_early", False) for r in runs),
            "seconds": round(sum(r.state.get("seconds", 0.0) for r in runs), 3),
            **sweeps.spread([s["top1"] for s in summaries if s.get("top1") is not None])}


def _print(folder: Path, summary: dict[str, Any]) -> None:
    table = Table(title=f"{folder}: {summary['done']} of {summary['runs']} runs done",
                  title_justify="left", title_style="bold")
    table.add_column("trial")
    for name in ("top-1", "std", "95 % interval of the mean", "seeds"):
        table.add_column(name, justify="right")
    rows = summary.get("trials", [summary | {"name": ""}])
    for row in sorted(rows, key=lambda row: -(row["top1_mean"] or 0.0)):
        mean, std, ci95 = (row[f"top1_{key}"] for key in ("mean", "std", "ci95"))
        table.add_row(row["name"] + (" (stopped early)" if row.get("stopped_early") else ""),
                      "" if mean is None else f"{mean:.2%}",
                      "" if std is None else f"{std:.2%}",
                      "" if ci95 is None else f"± {ci95:.2%}", str(row["n"]))
    console.stdout().print(table)
