"""One side of `benchmarks.input`: this code's decoder or loader. Prints a line of JSON.

    python -m benchmarks.input_cnnjax some/photos threads --cores=1 --workers=1
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator

import cv2
import numpy as np

from cnnjax.data import TrainOrder, open_dataset
from cnnjax.data.host import HostTransform
from cnnjax.data.stream import HostStream

MODES = ("decode", "threads", "workers")


def decoded(source, images: int) -> Iterator[int]:
    """Reads and decodes image after image, and nothing else."""
    for i in range(images):
        source[i % len(source)]
        yield 1


def loaded(split, images: int, batch: int, size: int, mode: str, workers: int) -> Iterator[int]:
    """Yields the rows of batches of random resized crops."""
    transform = HostTransform((size, size), random_area=(0.08, 1.0))
    stream = HostStream(split, transform, threads=workers,
                        workers=workers if mode == "workers" else 0)
    order = TrainOrder(0, len(split))

    def examples_of(step: int) -> tuple[np.ndarray, np.ndarray]:
        positions = step * batch + np.arange(batch)
        return order.at(positions), order.passes(positions)

    for call in stream.calls(examples_of, batch, range(-(-images // batch))):
        yield call["image"].shape[1]


def main() -> None:
    """Times what comes after the first `--warm_up` images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="with train/CLASS/*.jpg")
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--warm_up", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:arguments.cores])
    split = open_dataset(f"folder:{arguments.folder}").train
    total = arguments.images + arguments.warm_up
    if arguments.mode == "decode":
        rows = decoded(split.source, total)
    else:
        rows = loaded(split, total, arguments.batch, arguments.size, arguments.mode,
                      arguments.workers)
    warm = 0
    while warm < arguments.warm_up:
        warm += next(rows)
    start = time.perf_counter()
    count = sum(itertools.islice(rows, total))
    print(json.dumps({"images_s": count / (time.perf_counter() - start),
                      "version": f"OpenCV {cv2.__version__}"}))


if __name__ == "__main__":
    main()
