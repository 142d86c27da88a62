"""A training step of cnnjax against plain Flax and against PyTorch, in alternation.

    python -m benchmarks.train_step --torch_python=some/environment/bin/python

The step is forward, backward, SGD with momentum and weight decay, batch norm in training mode, on
one batch of noise that lies ready. Every measurement is a process of its own; the sides of a case
take turns, round by round, so that a machine that slows down slows all of them. A number is the
median over the rounds of the median over a round's steps, with the least and the most of the rounds
behind it. Both frameworks get the same allocator setting. The first round of a case compiles, and
the others find the programs in a cache, as the second start of an experiment does: "first" is the
first step's time and "peak" the process's memory, of the first round and then of the others.

Sides: "cnnjax" is `train.step.train_step`. "flax" is the same under `ops="xla"`, in which
convolutions, pools and dense layers lower to the operations that Flax's own lower to
(tests/ops/test_plain.py); batch norm reads its input twice for the statistics, Flax's once.
"cnnjax bf16 products" is in float32 but for the factors of matrix products, as under
`precision="bfloat16_products"`, for CPUs that have such instructions.
"torch", "torch bf16" (autocast) and "torch compile" are PyTorch in channels_last, from any
environment with torch and torchvision.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cnnjax import models

# model:pixels:batch size -> classes
CASES = {
    "lenet5_full:28:128": 10, "resnet18:32:128": 1000, "cifar_resnet18:32:128": 10,
    "resnet50:64:32": 1000, "resnet50:224:16": 1000, "efficientnet_b0:64:32": 1000,
    "efficientnet_b0:224:16": 1000, "vgg16:64:32": 1000, "googlenet:64:32": 1000,
    "mobilenet_v2:64:32": 1000, "alexnet:224:32": 1000}
OURS = {"cnnjax": ["--ops=auto"], "flax": ["--ops=xla"],
        "cnnjax bf16": ["--ops=auto", "--dtype=bfloat16"],
        "cnnjax bf16 products": ["--ops=auto", "--products=bfloat16"]}
THEIRS = {"torch": ["--mode=eager"], "torch bf16": ["--mode=bf16"],
          "torch compile": ["--mode=compile"], "torch compile bf16": ["--mode=compile_bf16"]}
SIDES = ["cnnjax", "flax", "torch", "torch bf16", "torch compile"]
ROOT = Path(__file__).resolve().parents[1]
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def case_of(text: str) -> str:
    """Returns a case of the command line.

    Raises:
      argparse.ArgumentTypeError: if it is none.
    """
    if not re.fullmatch(r"\w+:[1-9]\d*:[1-9]\d*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not model:pixels:batch, such as resnet18:32:128")
    return text


def command(side: str, case: str, steps: int, torch_python: str | None) -> list[str]:
    """Returns the command line that measures one side once."""
    common = [case, f"--classes={CASES.get(case, 1000)}", f"--steps={steps}"]
    if side in OURS:
        return [sys.executable, "-m", "benchmarks.train_step_cnnjax", *common, *OURS[side]]
    script = str(ROOT / "benchmarks" / "train_step_torch.py")
    return [torch_python, script, *common, *THEIRS[side]]


def measure(arguments: list[str], malloc: str, timeout: float, cache: str = "") -> dict:
    """Returns what a side printed, or {"error": …}; `cache` is a folder for compiled programs."""
    # An inherited cache would make the first step look fast.
    environment = {k: v for k, v in os.environ.items()
                   if k not in ("JAX_COMPILATION_CACHE_DIR", "GLIBC_TUNABLES")}
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    if malloc == "hugetlb":
        environment["GLIBC_TUNABLES"] = HUGE_PAGES
    try:
        done = subprocess.run(arguments, env=environment, cwd=ROOT, capture_output=True,
                              text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def spread(values: list[float], digits: int) -> str:
    """Returns "median (least to most)"."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def first_and_later(values: list[float], digits: int) -> str:
    """Returns "first round, then median of the others"."""
    later = f", then {statistics.median(values[1:]):.{digits}f}" if len(values) > 1 else ""
    return f"{values[0]:.{digits}f}{later}"


def rows(case: str, sides: list[str], results: dict[str, list[dict]]) -> list[str]:
    """Returns a case's lines of the table, ratios over "cnnjax" of the same round."""
    name, size, batch = case.split(":")
    lines = []
    for side in sides:
        title = f"| {name} {size} px b{batch} | {side} |"
        errors = [r["error"] for r in results[side] if "error" in r]
        if errors:
            lines.append(f"{title} not available: {errors[0][:80]} | | | | |")
            continue
        times = [r["ms"] for r in results[side]]
        base = [r.get("ms") for r in results["cnnjax"]]
        ratio = spread([t / b for t, b in zip(times, base, strict=True)], 2) if all(base) else ""
        speed = statistics.median([int(batch) / t * 1e3 for t in times])
        lines.append(f"{title} {spread(times, 1)} | {speed:.0f} | {ratio} | "
                     f"{first_and_later([r['first_s'] for r in results[side]], 1)} | "
                     f"{first_and_later([r['peak_mb'] / 1024 for r in results[side]], 2)} |")
    return lines


def processor() -> str:
    """Returns the processor's name, where Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), "")


def run_case(case: str, sides: list[str], arguments: argparse.Namespace) -> list[dict]:
    """Measures and prints one case; returns what was measured."""
    name = case.split(":")[0]
    if name not in models.list_models():
        print(f"| {case} | | not available: there is no model {name!r} | | | | |", flush=True)
        return []
    results: dict[str, list[dict]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(arguments.rounds):
            for side in sides:
                if any("error" in r for r in results[side]):
                    continue
                results[side].append(measure(
                    command(side, case, arguments.steps, arguments.torch_python),
                    arguments.malloc, arguments.timeout, cache))
    print("\n".join(rows(case, sides, results)), flush=True)
    return [{"case": case, "side": side, **r} for side in sides for r in results[side]]


def main() -> None:
    """Prints a Markdown table; a side that fails has a row that says so."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch_python", help="a Python with torch and torchvision")
    parser.add_argument("--cases", nargs="*", type=case_of, default=list(CASES),
                        help="model:pixels:batch")
    parser.add_argument("--sides", nargs="*", choices=[*OURS, *THEIRS],
                        help=f"default: {', '.join(SIDES)}, the last ones with --torch_python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--malloc", choices=["hugetlb", "stock"], default="hugetlb",
                        help=f"hugetlb: GLIBC_TUNABLES={HUGE_PAGES} for every side")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for a measurement")
    parser.add_argument("--json", type=Path, help="a file for every single measurement")
    arguments = parser.parse_args()
    sides = list(SIDES if arguments.sides is None else arguments.sides)
    if not arguments.torch_python and (theirs := [side for side in sides if side in THEIRS]):
        if arguments.sides is not None:
            parser.error(f"{theirs[0]!r} needs --torch_python: name a Python with torch and "
                         "torchvision.")
        sides = [side for side in sides if side not in THEIRS]
    if "cnnjax" not in sides:
        sides.insert(0, "cnnjax")
    print(f"{processor()}, {os.cpu_count()} CPU cores, {arguments.rounds} rounds of "
          f"{arguments.steps} steps, {arguments.malloc} malloc\n")
    print("| case | side | ms a step | images/s | time over cnnjax's | first, s | peak, GB |\n"
          "|---|---|---|---|---|---|---|")
    measured = [m for case in arguments.cases for m in run_case(case, sides, arguments)]
    versions = sorted({f"{m['version']} ({m['device']})" for m in measured if "version" in m})
    print("\n" + ", ".join(versions))
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
