"""Channels visualised: seconds of `analysis.maximise` beside Lucent's and a plain PyTorch loop.

    python -m benchmarks.feature_visualisation --torch_python=…/bin/python
    python -m benchmarks.feature_visualisation --torch_python=…/bin/python \
        --steps=4 --images=8 --rounds=1

64 channels of MobileNetV2's last stage at 128 pixels, 256 steps of Adam in Fourier coordinates with
random shifts, scales and rotations. The weights are random: the time doesn't depend on them. Every
measurement is a process of its own, and the sides take turns. The seconds are all that a user waits
for, compiling included (no cache), without imports and the model's making.

Sides: "cnnjax"; "plain" is a PyTorch loop over one batch that does the same work, the network cut
at the layer and without gradients of parameters; "lucent" is render_vis with one batch of all
images, as it comes, which enlarges them to 224 pixels for the network; "lucent_same" shows the
network the 128 pixels; "lucent_single" is one call an image, as in its tutorials, of which
--single images are measured and the time is multiplied up.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.train_step import HUGE_PAGES, ROOT, measure, processor, spread

THEIRS = ("plain", "lucent", "lucent_same", "lucent_single")


def command(side: str, arguments: argparse.Namespace) -> list[str]:
    """Returns the command line that measures one side once."""
    images = arguments.single if side == "lucent_single" else arguments.images
    common = [f"--images={images}", f"--size={arguments.size}", f"--steps={arguments.steps}"]
    if side == "cnnjax":
        if arguments.batch_size:
            common.append(f"--batch_size={arguments.batch_size}")
        return [sys.executable, "-m", "benchmarks.feature_visualisation_cnnjax",
                "mobilenet_v2:stage7", *common]
    script = str(Path(ROOT) / "benchmarks" / "feature_visualisation_torch.py")
    return [arguments.torch_python, script, "mobilenet_v2:17", f"--mode={side}", *common]


def rows(results: dict[str, list[dict]], steps: int, images: dict[str, int]) -> list[str]:
    """Returns the lines of the table, with ratios over "cnnjax" of the same round.

    Args:
      results: what each side printed in each round, or {"error": …}.
      steps: of each measurement.
      images: that the side had measured, and under "all" those it is scaled to.
    """
    lines = []
    for side, measured in results.items():
        errors = [r["error"] for r in measured if "error" in r]
        if errors:
            lines.append(f"| {side} | not available: {errors[0][:80]} | | | |")
            continue
        scale = images["all"] / images[side]
        totals = [(r["first_s"] + r["s"]) * scale for r in measured]
        base = [r for r in results["cnnjax"] if "error" not in r]
        ratios = ["", ""]
        if len(base) == len(measured):
            ratios = [spread([t / (b["first_s"] + b["s"]) for t, b in
                              zip(totals, base, strict=True)], 2),
                      spread([r["s"] * scale / b["s"] for r, b in
                              zip(measured, base, strict=True)], 2)]
        lines.append(f"| {side} | {spread(totals, 1)} | "
                     f"{spread([r['s'] * scale / steps * 1e3 for r in measured], 0)} | "
                     f"{ratios[0]} | {ratios[1]} |")
    return lines


def main() -> None:
    """Prints a Markdown table; a side that fails has a row that says so."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch_python", help="a Python with torch, torchvision, torch-lucent")
    parser.add_argument("--sides", nargs="*", choices=THEIRS, default=list(THEIRS))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--single", type=int, default=2, help="images of lucent_single")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--batch_size", type=int, help="of cnnjax: images computed at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--malloc", choices=["hugetlb", "stock"], default="hugetlb",
                        help=f"hugetlb: GLIBC_TUNABLES={HUGE_PAGES} for every side")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for a measurement")
    arguments = parser.parse_args()
    sides = ["cnnjax", *(arguments.sides if arguments.torch_python else [])]
    print(f"{processor()}, {os.cpu_count()} CPU cores, {arguments.images} images of "
          f"{arguments.size} px, {arguments.steps} steps, {arguments.rounds} rounds, "
          f"{arguments.malloc} malloc\n")
    results: dict[str, list[dict]] = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side in sides:
            if not any("error" in r for r in results[side]):
                results[side].append(measure(command(side, arguments), arguments.malloc,
                                             arguments.timeout))
    print("| side | seconds | ms a step | time over cnnjax's | without compiling |\n"
          "|---|---|---|---|---|")
    images = dict.fromkeys(["all", *sides], arguments.images) | {"lucent_single": arguments.single}
    print("\n".join(rows(results, arguments.steps, images)))
    versions = {f"{r['version']} ({r['device']})" for measured in results.values()
                for r in measured if "version" in r}
    print("\n" + ", ".join(sorted(versions)))


if __name__ == "__main__":
    main()
