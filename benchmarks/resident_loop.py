"""Steps a second from data that lies on the device, beside a PyTorch loop over the same net.

    python -m benchmarks.resident_loop --torch_python=some/environment/bin/python

Our side is a preset of experiments/resnet_cifar.py as the trainer runs it: uint8 images and their
order on the device, augmentation, averages and the optimiser in the step, many steps a call on an
accelerator. PyTorch's has the normalised images on the device, draws indices and flips there, and
no other augmentation and no averages. 60,000 images of noise stand for Fashion-MNIST. Every
measurement is a process of its own; the sides take turns.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import train_step

PRESETS = ("fashion_mnist", "fashion_mnist_wide")
MODES = ("eager", "compile")


def commands(preset: str, steps: int, images: int, torch_python: str | None) -> dict[str, list]:
    """Returns the command line of each side."""
    common = [preset, f"--steps={steps}", f"--images={images}"]
    sides = {"cnnjax": [sys.executable, "-m", "benchmarks.resident_loop_cnnjax", *common]}
    script = str(train_step.ROOT / "benchmarks" / "resident_loop_torch.py")
    if torch_python:
        sides |= {f"torch {mode}": [torch_python, script, *common, f"--mode={mode}"]
                  for mode in MODES}
    return sides


def rows(preset: str, results: dict[str, list[dict]]) -> list[str]:
    """Returns a preset's lines of the table, ratios under "cnnjax" of the same round."""
    lines = []
    for side, measured in results.items():
        errors = [r["error"] for r in measured if "error" in r]
        if errors:
            lines.append(f"| {preset} | {side} | not available: {errors[0][:80]} | |")
            continue
        rates = [r["steps_per_second"] for r in measured]
        base = [r.get("steps_per_second") for r in results["cnnjax"]]
        ratio = (train_step.spread([b / r for b, r in zip(base, rates, strict=True)], 2)
                 if all(base) else "")
        lines.append(f"| {preset} | {side} | {train_step.spread(rates, 1)} | {ratio} |")
    return lines


def main() -> None:
    """Prints a Markdown table; a side that fails has a row that says so."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch_python", help="a Python with torch and torchvision")
    parser.add_argument("--presets", nargs="*", default=PRESETS, choices=PRESETS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for a measurement")
    arguments = parser.parse_args()
    print("| preset | side | steps/s | cnnjax's over it |\n|---|---|---|---|")
    versions = set()
    for preset in arguments.presets:
        sides = commands(preset, arguments.steps, arguments.images, arguments.torch_python)
        results: dict[str, list[dict]] = {side: [] for side in sides}
        for _ in range(arguments.rounds):
            for side, command in sides.items():
                results[side].append(train_step.measure(command, "hugetlb", arguments.timeout))
        print("\n".join(rows(preset, results)), flush=True)
        versions |= {f"{m['version']} ({m['device']})" for measured in results.values()
                     for m in measured if "version" in m}
    print("\n" + ", ".join(sorted(versions)))


if __name__ == "__main__":
    main()
