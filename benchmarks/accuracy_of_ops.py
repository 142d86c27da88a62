"""What a sweep over `ops` says of accuracy: python -m benchmarks.accuracy_of_ops runs/ops-short

Reads the folder of experiments/sweeps/ops.py and prints, for each network, top-1 of ops=auto and of
precision=bfloat16_products beside that of ops=xla, as mean ± standard deviation over the seeds, and
the difference as the mean of the differences of a seed with its 95 % interval (Student's t). The
interval of so few seeds is wide: it says how small a difference the sweep could have seen. Of a
sweep that is not finished, the seeds count for which both are done.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from cnnjax import sweeps
from cnnjax.types import UserError

OTHERS = ("auto", "products")  # As the sweep names what is compared with "xla".


def pairs(results: Iterable[sweeps.Result]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Returns (net, one of OTHERS) -> (its top-1, top-1 with xla) of each seed that has both."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for result in results:
        if {"net", "formulations"} <= result.trial.tags.keys() and result.done:
            key = (result.trial.tags["net"], result.seed)
            found.setdefault(key, {})[result.trial.tags["formulations"]] = result.summary["top1"]
    compared: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for (net, _), top1 in found.items():
        for other in OTHERS:
            if {other, "xla"} <= top1.keys():
                compared.setdefault((net, other), []).append((top1[other], top1["xla"]))
    return compared


def row(net: str, other: str, top1: list[tuple[float, float]]) -> str:
    """Returns a line of the table, in percent."""
    ours, xla = zip(*top1, strict=True)
    cells = []
    for values in (ours, xla):
        found = sweeps.spread(values)
        std = "" if found["top1_std"] is None else f" ± {100 * found['top1_std']:.2f}"
        cells.append(f"{100 * found['top1_mean']:.2f}{std}")
    found = sweeps.spread([a - b for a, b in top1])
    mean, half = 100 * found["top1_mean"], found["top1_ci95"]
    interval = "" if half is None else f" ({mean - 100 * half:+.2f} to {mean + 100 * half:+.2f})"
    return f"| {net} | {other} | {cells[0]} | {cells[1]} | {mean:+.2f}{interval} | {len(top1)} |"


def main() -> int:
    """Prints a Markdown table; returns 2 if there is no pair in the folder."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the sweep")
    folder = parser.parse_args().folder
    try:
        compared = pairs(sweeps.read(folder)[1])
        if not compared:
            raise UserError(f"In {folder} there is no seed for which ops=xla and another are done.")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print("| network | formulations | top-1, % | with ops=xla, % | difference (95 % interval) | "
          "seeds |\n|---|---|---|---|---|---|")
    print("\n".join(row(*names, top1) for names, top1 in sorted(compared.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
