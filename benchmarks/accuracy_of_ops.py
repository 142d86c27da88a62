"""What a sweep over `ops` says of accuracy: python -m benchmarks.accuracy_of_ops runs/ops-short

Reads the folder of experiments/sweeps/ops.py and prints, for each network, top-1 of ops=auto and of
ops=xla as mean ± standard deviation over the seeds, and their difference as the mean of the
differences of a seed with its 95 % interval (Student's t). The interval of so few seeds is wide:
it says how small a difference the sweep could have seen. Of a sweep that is not finished, the seeds
count for which both are done.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from cnnjax import sweeps
from cnnjax.types import UserError


def pairs(results: Iterable[sweeps.Result]) -> dict[str, list[tuple[float, float]]]:
    """Returns net -> (top-1 with auto, with xla) of each seed for which both are done."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for result in results:
        if {"net", "formulations"} <= result.trial.tags.keys() and result.done:
            key = (result.trial.tags["net"], result.seed)
            found.setdefault(key, {})[result.trial.tags["formulations"]] = result.summary["top1"]
    nets: dict[str, list[tuple[float, float]]] = {}
    for (net, _), top1 in found.items():
        if {"auto", "xla"} <= top1.keys():
            nets.setdefault(net, []).append((top1["auto"], top1["xla"]))
    return nets


def row(net: str, top1: list[tuple[float, float]]) -> str:
    """Returns a network's line of the table, in percent."""
    auto, xla = zip(*top1, strict=True)
    cells = []
    for values in (auto, xla):
        found = sweeps.spread(values)
        std = "" if found["top1_std"] is None else f" ± {100 * found['top1_std']:.2f}"
        cells.append(f"{100 * found['top1_mean']:.2f}{std}")
    found = sweeps.spread([a - b for a, b in top1])
    mean, half = 100 * found["top1_mean"], found["top1_ci95"]
    interval = "" if half is None else f" ({mean - 100 * half:+.2f} to {mean + 100 * half:+.2f})"
    return f"| {net} | {cells[0]} | {cells[1]} | {mean:+.2f}{interval} | {len(top1)} |"


def main() -> int:
    """Prints a Markdown table; returns 2 if there is no pair in the folder."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the sweep")
    folder = parser.parse_args().folder
    try:
        nets = pairs(sweeps.read(folder)[1])
        if not nets:
            raise UserError(f"In {folder} there is no seed for which both ops=auto and ops=xla are "
                            "done.")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print("| network | top-1 with ops=auto, % | with ops=xla, % | difference (95 % interval) | "
          "seeds |\n|---|---|---|---|---|")
    print("\n".join(row(net, top1) for net, top1 in sorted(nets.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
