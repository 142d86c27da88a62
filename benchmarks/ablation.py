"""What each formulation of `cnnjax.ops` is worth: a training step without it, over the whole.

    python -m benchmarks.ablation --cases resnet18:32:128 efficientnet_b0:64:32

All programs of a case are compiled in one process and their steps take turns, round by round, so
that a machine that slows down slows all of them. A ratio is that of a round: the step without the
formulation over the step with all of them. One whose absence leaves the program as it is has no
row. "all of them" is `ops="xla"`, "those that round more" is `ops="exact"`. What the allocator's
huge pages are worth is told by `benchmarks.train_step --malloc=stock` against `--malloc=hugetlb`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from pathlib import Path

import jax

from benchmarks.train_step import CASES, case_of, processor, spread
from benchmarks.train_step_cnnjax import make_step
from cnnjax import allocator, ops

DEFAULT = ["lenet5_full:28:128", "resnet18:32:128", "resnet50:64:32", "efficientnet_b0:64:32",
           "vgg16:64:32", "alexnet:224:32"]
WHOLE = "-"


def variants() -> dict[str, contextlib.AbstractContextManager]:
    """Returns what to leave out, in words, with the context that does."""
    return {WHOLE: contextlib.nullcontext(),
            **{f"`{name}`": ops.without(name) for name in ops.names()},
            "those that round more": ops.using("exact"), "all of them": ops.using("xla")}


class Program:
    """A compiled training step, and the milliseconds of the steps that it has made."""

    def __init__(self, lowered: jax.stages.Lowered, state, batches):
        start = time.perf_counter()
        self._call, self._state, self._batches = lowered.compile(), state, batches
        self.compile_seconds = time.perf_counter() - start
        self.ms: list[float] = []

    def run(self, steps: int) -> None:
        """Makes some steps, and keeps their median."""
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            self._state, losses = self._call(self._state, {}, self._batches)
            jax.block_until_ready(losses)
            seconds.append(time.perf_counter() - start)
        self.ms.append(1e3 * statistics.median(seconds))


def programs(case: str, dtype: str) -> dict[str, Program]:
    """Compiles the programs of a case, each with a state of its own."""
    name, size, batch = case.split(":")
    found, texts = {}, set()
    for title, context in variants().items():
        with context:
            call, state, batches = make_step(name, int(size), int(batch), CASES.get(case, 1000),
                                             dtype)
            lowered = call.lower(state, {}, batches)
        text = lowered.as_text()
        if text not in texts:
            texts.add(text)
            found[title] = Program(lowered, state, batches)
    return found


def rows(case: str, measured: dict[str, list[float]], seconds: dict[str, float]) -> list[str]:
    """Returns a case's lines of the table.

    Args:
      case: model:pixels:batch size.
      measured: what is left out -> milliseconds of a step in each round.
      seconds: what is left out -> seconds of the compilation.
    """
    lines = []
    for title, ms in measured.items():
        ratio = [a / b for a, b in zip(ms, measured[WHOLE], strict=True)]
        lines.append(f"| {case} | {title} | {spread(ms, 1)} | {spread(ratio, 2)} | "
                     f"{seconds[title]:.1f} |")
    return lines


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", type=case_of, default=DEFAULT,
                        help="model:pixels:batch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="of each program in a round")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", type=Path, help="a file for every round")
    arguments = parser.parse_args()
    allocator.restart_with_huge_pages()
    device = jax.devices()[0].device_kind
    print(f"jax {jax.__version__} ({device}), {processor()}, {os.cpu_count()} CPU cores, "
          f"{arguments.rounds} rounds of {arguments.steps} steps, {arguments.dtype}\n")
    print("| case | left out | ms a step | over the whole | compilation, s |\n"
          "|---|---|---|---|---|", flush=True)
    kept = []
    for case in arguments.cases:
        found = programs(case, arguments.dtype)
        for program in found.values():
            program.run(2)
            program.ms.clear()
        for _ in range(arguments.rounds):
            for program in found.values():
                program.run(arguments.steps)
        measured = {title: program.ms for title, program in found.items()}
        seconds = {title: program.compile_seconds for title, program in found.items()}
        print("\n".join(rows(case, measured, seconds)), flush=True)
        kept += [{"case": case, "left_out": title, "ms": ms, "device": device}
                 for title, ms in measured.items()]
    if arguments.json:
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
