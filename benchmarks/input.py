"""The input pipeline against torchvision's, in images a second, in alternation.

    python -m benchmarks.input --folder=hymenoptera_data --torch_python=some/environment/bin/python

Photos from disk (from the page cache, after the first round) through decoding, random resized crop
to 224 pixels and batching, uint8 all the way. Sides: "decode" is a plain loop of this code's reader
and decoder, a process of its own on every core: the limit. "threads" and "workers" are this code's
loader (`data.threads`, `data.workers`). "pil" is torchvision's `ImageFolder`, `RandomResizedCrop`,
`RandomHorizontalFlip` and `PILToTensor` through torch's DataLoader, and "decode_jpeg" the same with
torchvision's own decoder; cnnjax flips on the device. A DataLoader with 0 workers loads in its main
process.

Every measurement is a process of its own, pinned with all it starts to the first core or cores;
the sides take turns, round by round. A number is the median of the rounds, with the least and the
most; ratios are of the same round. "of decode" is the share of the decode loops on as many cores;
"over pil" compares with the fastest "pil" of as many cores; "over 1" with the same side at one
worker. Give more images where there are many cores: each measurement should take seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.train_step import ROOT, measure, processor, spread

OURS = ("threads", "workers")
THEIRS = ("pil", "decode_jpeg")
Case = tuple[str, int, int]  # Side, cores, workers.


def cases_of(cores: list[int], sides: list[str]) -> list[Case]:
    """Returns what to measure: a worker a core, and torchvision's own process on one core."""
    cases = []
    for count in cores:
        cases += [(side, count, count) for side in ("decode", *OURS, *THEIRS)]
        if count == 1:
            cases += [(side, 1, 0) for side in THEIRS]
    return [case for case in cases if case[0] in sides]


def command(case: Case, folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Returns the command line that measures one side once."""
    side, cores, workers = case
    program = ([arguments.torch_python, str(ROOT / "benchmarks" / "input_torch.py")]
               if side in THEIRS else [sys.executable, "-m", "benchmarks.input_cnnjax"])
    return [*program, str(folder), side, f"--cores={cores}", f"--workers={workers}",
            f"--images={arguments.images}", f"--batch={arguments.batch}",
            f"--size={arguments.size}"]


def over(results: dict[Case, list[dict]], case: Case, bases: list[Case]) -> str:
    """Returns the speed over that of the fastest of the bases, in the same round, or ""."""
    bases = [base for base in bases if results.get(base) and "error" not in results[base][-1]]
    if not bases:
        return ""
    ratios = [own["images_s"] / max(results[base][i]["images_s"] for base in bases)
              for i, own in enumerate(results[case])]
    return spread(ratios, 2)


def row(results: dict[Case, list[dict]], case: Case) -> str:
    """Returns a side's line of the table."""
    side, cores, workers = case
    title = f"| {side} | {cores} | {'' if side == 'decode' else workers} |"
    if "error" in results[case][-1]:
        return f"{title} not available: {results[case][-1]['error'][:80]} | | | | |"
    speeds = [r["images_s"] for r in results[case]]
    pil = [base for base in results if base[0] == "pil" and base[1] == cores]
    one = [(side, 1, 1)] if workers > 1 else []
    return (f"{title} {spread(speeds, 0)} | {spread([s / cores for s in speeds], 0)} | "
            f"{over(results, case, [('decode', cores, cores)])} | {over(results, case, pil)} | "
            f"{over(results, case, one)} |")


@contextlib.contextmanager
def photos(folder: Path, upscale: str | None) -> Iterator[Path]:
    """Gives the folder, or a copy of which every photo is WIDTHxHEIGHT, JPEG of quality 90."""
    if not upscale:
        yield folder
        return
    import cv2

    size = tuple(map(int, upscale.split("x")))
    with tempfile.TemporaryDirectory() as copy:
        for path in folder.rglob("*.jpg"):
            target = Path(copy) / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            image = cv2.resize(cv2.imread(str(path)), size, interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        yield Path(copy)


def main() -> None:
    """Prints a Markdown table; a side that fails has a row that says so."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch_python", help="a Python with torch and torchvision")
    parser.add_argument("--folder", type=Path, help="with train/CLASS/*.jpg and val/; by default "
                        "hymenoptera in $CNNJAX_TEST_DATA")
    parser.add_argument("--upscale", help="such as 1600x1200: of copies of that size")
    sides = ["decode", *OURS, *THEIRS]
    parser.add_argument("--sides", nargs="*", default=sides, choices=sides)
    parser.add_argument("--cores", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=2000, help="of each measurement")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--timeout", type=float, default=600, help="seconds for a measurement")
    parser.add_argument("--json", type=Path, help="a file for every single measurement")
    arguments = parser.parse_args()
    if not arguments.folder and not os.environ.get("CNNJAX_TEST_DATA"):
        parser.error("--folder is missing: name a folder of photos with train/CLASS/*.jpg and "
                     "val/, or set CNNJAX_TEST_DATA.")
    folder = arguments.folder or Path(os.environ["CNNJAX_TEST_DATA"]) / "hymenoptera"
    if not (folder / "train").is_dir():
        parser.error(f"There is no folder {folder / 'train'}: name a folder of photos with "
                     "train/CLASS/*.jpg and val/, --folder=DIR.")
    cases = [case for case in cases_of(arguments.cores, arguments.sides)
             if arguments.torch_python or case[0] not in THEIRS]
    results: dict[Case, list[dict]] = {case: [] for case in cases}
    with photos(folder.resolve(), arguments.upscale) as used:
        for _ in range(arguments.rounds):
            for case in cases:
                if not (results[case] and "error" in results[case][-1]):
                    results[case].append(measure(command(case, used, arguments), "stock",
                                                 arguments.timeout))
    print(f"{processor()}, {os.cpu_count()} CPU cores, {arguments.rounds} rounds of "
          f"{arguments.images} photos{' of ' + arguments.upscale if arguments.upscale else ''} to "
          f"{arguments.size} px, batch {arguments.batch}\n")
    print("| side | cores | workers | images/s | images/s a core | of decode | over pil | over 1 |"
          "\n|---|---|---|---|---|---|---|---|")
    print("\n".join(row(results, case) for case in cases))
    print("\n" + ", ".join(sorted({r["version"] for values in results.values() for r in values
                                   if "version" in r})))
    if arguments.json:
        arguments.json.write_text(json.dumps(
            [{"side": side, "cores": cores, "workers": workers, **r}
             for (side, cores, workers), values in results.items() for r in values], indent=1)
            + "\n")


if __name__ == "__main__":
    main()
