"""One side of `benchmarks.input`: this code's decoder or loader. Prints a line of JSON.

    python -m benchmarks.input_cnnjax some/photos threads --cores=1 --workers=1
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator

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


def timed(rows: Iterator[int], warm_up: int, images: int, ready: Callable[[], object]) -> float:
    """Returns the images a second that come after the first, from when all are `ready`."""
    warm = 0
    while warm < warm_up:
        warm += next(rows)
    ready()
    start, count = time.perf_counter(), 0
    while count < images:
        count += next(rows)
    return count / (time.perf_counter() - start)


def decode_alone(core: int, barrier, results, arguments: argparse.Namespace) -> None:
    """Decodes in a process of its own, on a core of its own."""
    os.sched_setaffinity(0, [core])
    source = open_dataset(f"folder:{arguments.folder}").train.source
    rows = decoded(source, arguments.images + arguments.warm_up)
    results.put(timed(rows, arguments.warm_up, arguments.images, barrier.wait))


def decode_beside(arguments: argparse.Namespace) -> float:
    """Returns the sum of what a process a core decodes in a second: the machine's limit."""
    open_dataset(f"folder:{arguments.folder}")  # What is wrong with it is said here, once.
    context = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0))[:arguments.cores]
    barrier, results = context.Barrier(len(cores)), context.Queue()
    processes = [context.Process(target=decode_alone, args=(core, barrier, results, arguments))
                 for core in cores]
    for process in processes:
        process.start()
    rate = sum(results.get(timeout=600) for _ in processes)
    for process in processes:
        process.join()
    return rate


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
    if arguments.mode == "decode":
        rate = decode_beside(arguments)
    else:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:arguments.cores])
        rows = loaded(open_dataset(f"folder:{arguments.folder}").train,
                      arguments.images + arguments.warm_up + arguments.batch, arguments.batch,
                      arguments.size, arguments.mode, arguments.workers)
        rate = timed(rows, arguments.warm_up, arguments.images, lambda: None)
    print(json.dumps({"images_s": rate, "version": f"OpenCV {cv2.__version__}"}))


if __name__ == "__main__":
    main()
