"""How the cost of training grows: with the batch, the resolution, compound scaling, and devices.

    python -m benchmarks.cost_growth --figure=cost_growth.png

Each point is a process that runs `launch.py --job=benchmark` on the small EfficientNet of
experiments/efficientnet.py (batch 64, 32 px, half of B0's depth and width), with one thing changed.
Devices are virtual: parts of one CPU (`--xla_force_host_platform_device_count`), which share its
cores, so that their curve shows what dividing a batch costs and gains nothing. Times are of a step
on a batch that lies ready: medians over rounds, with the least and the most behind them.

The dashed lines of the figure are the first point's rate divided by how many times as many
multiply-adds an image takes: where a measured curve falls less, larger work fills the machine
better.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.train_step import ROOT, processor

EXPERIMENT = "experiments/efficientnet.py"
# What it has without a word about it: a point where the axes meet, measured once.
COMMON = {"batch": 64, "resolution": 32, "phi": 0, "devices": 1}
# Axis -> (label with unit, values, those of --quick).
AXES = {
    "batch": ("batch size, images", (8, 16, 32, 64, 128), (16, 64)),
    "resolution": ("resolution, pixels a side", (16, 32, 48, 64), (16, 32)),
    "phi": ("compound coefficient φ", (0, 1, 2, 3, 4), (0, 2)),
    "devices": ("virtual devices of one CPU", (1, 2, 4, 8), (1, 8))}


def command(axis: str, value: int) -> tuple[list[str], dict[str, str]]:
    """Returns the words of a point's command after launch.py, and what it needs in XLA_FLAGS."""
    changed = axis if value != COMMON[axis] else None
    preset = f":phi={value}" if changed == "phi" else ""
    words = [f"--config={EXPERIMENT}{preset}", "--job=benchmark"]
    if changed == "batch":
        words.append(f"--config.train.batch_size={value}")
    elif changed == "resolution":
        words.append(f"--config.data.image_size={value}")
    devices = value if changed == "devices" else 1
    return words, {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}


def measure(axis: str, value: int, rounds: int, seconds: float) -> dict:
    """Returns the benchmark.json of a point.

    Raises:
      RuntimeError: with the end of what the command wrote, if it failed.
    """
    words, flags = command(axis, value)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "launch.py", *words, f"--workdir={folder}",
             f"--config.benchmark.rounds={rounds}", f"--config.benchmark.seconds={seconds}"],
            cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"} | flags, capture_output=True,
            text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{axis} {value}: {done.stderr.strip()[-500:]}")
        return json.loads((Path(folder) / "benchmark.json").read_text())


def row(axis: str, value: int, found: dict) -> str:
    """Returns a point's line of the table."""
    step, xla = found["times"]["step"], found["xla_per_device"]
    return (f"| {axis} {value} | {found['batch_size']} x {found['image_size'][0]} px | "
            f"{step['images_per_second']:,.0f} | "
            f"{step['ms']:.1f} ({step['ms_least']:.1f} to {step['ms_most']:.1f}) | "
            f"{found['multiply_adds_per_image'] / 1e6:,.2f} | "
            f"{found['achieved_flops_per_second'] / 1e9:.1f} | {xla['temp_bytes'] / 1e6:,.0f} | "
            f"{found['compilation']['compile_seconds']:.1f} |")


def draw(points: dict[str, dict[int, dict]], path: Path, title: str) -> None:
    """Writes a PNG: a panel for each axis, images/s over its values."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    for axes, (axis, found) in zip(figure.subplots(2, 2).flat, points.items(), strict=False):
        values, times = list(found), [f["times"]["step"] for f in found.values()]
        images = [f["batch_size"] * 1e3 for f in found.values()]
        rates = [t["images_per_second"] for t in times]
        # Of a single round the three are equal, but for rounding.
        spread = [[max(0.0, rate - n / t["ms_most"]) for rate, n, t in zip(rates, images, times,
                                                                           strict=True)],
                  [max(0.0, n / t["ms_least"] - rate) for rate, n, t in zip(rates, images, times,
                                                                            strict=True)]]
        axes.errorbar(values, rates, yerr=spread, marker="o", capsize=3, label="measured")
        macs = [f["multiply_adds_per_image"] for f in found.values()]
        if len(set(macs)) > 1:
            axes.plot(values, [rates[0] * macs[0] / m for m in macs], "k--", linewidth=1,
                      label="inverse of the multiply-adds")
        if axis != "phi":
            axes.set_xscale("log", base=2)
        axes.set_xticks(values, [str(v) for v in values], minor=False)
        axes.set_yscale("log")
        axes.set_xlabel(AXES[axis][0])
        axes.set_ylabel("training, images/s")
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Prints a Markdown table, and writes a figure if it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two values an axis, two rounds")
    parser.add_argument("--axes", nargs="*", choices=list(AXES), default=list(AXES))
    parser.add_argument("--rounds", type=int, help="default 3, with --quick 2")
    parser.add_argument("--seconds", type=float, help="of a round; default 1, with --quick 0.2")
    parser.add_argument("--figure", type=Path, help="a PNG")
    parser.add_argument("--json", type=Path, help="a file for every point")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (2 if arguments.quick else 3)
    seconds = arguments.seconds or (0.2 if arguments.quick else 1.0)
    where = f"{processor()}, {os.cpu_count()} CPU cores"
    print(f"{where}, {rounds} rounds of {seconds:g} s\n")
    print("| point | batch | images/s | ms a step | multiply-adds an image, M | GFLOP/s | "
          "temporaries, MB a device | compilation, s |\n|---|---|---|---|---|---|---|---|",
          flush=True)
    points, measured = {}, {}
    for axis in arguments.axes:
        points[axis] = {}
        for value in AXES[axis][2 if arguments.quick else 1]:
            key = str(command(axis, value))
            if key not in measured:
                measured[key] = measure(axis, value, rounds, seconds)
            points[axis][value] = measured[key]
            print(row(axis, value, measured[key]), flush=True)
    if arguments.figure:
        draw(points, arguments.figure, f"Cost of training a small EfficientNet ({where})")
    if arguments.json:
        arguments.json.write_text(json.dumps(points, indent=1) + "\n")


if __name__ == "__main__":
    main()
