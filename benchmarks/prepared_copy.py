"""How much faster a prepared copy of large photographs streams than the originals.

    python -m benchmarks.prepared_copy --photos=hymenoptera_data

The photographs of a folder (train/CLASS and val/CLASS, or CLASS) are enlarged to `--size` and saved
as JPEG, also in tar shards; `--job=prepare`'s code then writes the copy. All three are read as
training reads them, random resized crops by all cores, in alternation, after a round that warms up.
Enlarged photographs are smoother than taken ones, and decode somewhat faster.

It prints images/s of each (median of the rounds), bytes an image, images/s of the preparation, the
ratio of the copy to the folder, and how long a tar file takes to look through, a member.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cnnjax import data
from cnnjax.cores import available_cores
from cnnjax.data import TrainOrder, host, stream, webdataset
from cnnjax.data.resized_copy import in_order

BATCH = 64


def enlarge(photos: str, folder: Path, size: tuple[int, int], quality: int) -> data.Dataset:
    """Writes the photos of a folder in another size, and returns them as a data set."""
    original = data.open_dataset(f"folder:{photos}")
    for name, split in (("train", original.train), ("val", original.eval)):
        for label in original.class_names:
            (folder / name / label).mkdir(parents=True, exist_ok=True)

        def write(i: int, name: str = name, split: data.Split = split) -> None:
            image, label = split.source[i]
            large = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
            large.save(folder / name / original.class_names[label] / f"{i}.jpg", quality=quality)

        for _ in in_order(write, range(len(split)), available_cores()):
            pass
    return data.open_dataset(f"folder:{folder}")


def write_shards(source: data.Dataset, folder: Path, images: int = 100) -> data.Dataset:
    """Writes the same files as tar shards of `images` images."""
    folder.mkdir()
    for name, split in (("train", source.train), ("val", source.eval)):
        for start in range(0, len(split), images):
            with tarfile.open(folder / f"{name}-{start // images:04d}.tar", "w") as archive:
                for i in range(start, min(start + images, len(split))):
                    contents, label, _ = split.source.encoded(i)
                    for member, value in ((f"{i:06d}.jpg", contents),
                                          (f"{i:06d}.cls", b"%d" % label)):
                        info = tarfile.TarInfo(member)
                        info.size = len(value)
                        archive.addfile(info, io.BytesIO(value))
    return data.open_dataset(f"wds:{folder}")


def look_through(path: Path, members: int = 20_000) -> float:
    """Returns the seconds that a member of a tar file takes when it is looked through."""
    with tarfile.open(path, "w") as archive:
        for i in range(members // 2):
            for name, value in ((f"{i:06d}.jpg", bytes(2000)), (f"{i:06d}.cls", b"1")):
                info = tarfile.TarInfo(name)
                info.size = len(value)
                archive.addfile(info, io.BytesIO(value))
    began = time.perf_counter()
    webdataset.scan_shard(str(path))
    return (time.perf_counter() - began) / members


def speed(split: data.Split, image_size: int, steps: int, threads: int, seed: int) -> float:
    """Returns images/s of `steps` batches."""
    order = TrainOrder(seed, len(split))
    transform = host.HostTransform((image_size, image_size), random_area=(0.08, 1.0), seed=seed)
    feed = stream.HostStream(split, transform, threads)

    def examples_of(step: int) -> tuple[np.ndarray, np.ndarray]:
        positions = np.arange(step * BATCH, (step + 1) * BATCH)
        return order.at(positions), order.passes(positions)

    began = time.perf_counter()
    for _ in feed.calls(examples_of, BATCH, range(steps)):
        pass
    return steps * BATCH / (time.perf_counter() - began)


def rounds(splits: dict[str, data.Split], arguments: argparse.Namespace
           ) -> Iterator[tuple[str, float]]:
    """Yields (name, images/s), in alternation."""
    for number in range(arguments.rounds + 1):
        for name, split in splits.items():
            found = speed(split, arguments.image_size, arguments.steps, arguments.threads, number)
            if number:
                yield name, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="a folder of images by class")
    parser.add_argument("--size", default="1600x1200", help="width x height of the originals")
    parser.add_argument("--short_side", type=int, default=256)
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=8, help=f"batches of {BATCH} a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: one a core")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = enlarge(arguments.photos, folder / "large", (width, height), 92)
        shards = write_shards(large, folder / "shards")
        began = time.perf_counter()
        data.write_copy(large, folder / "large", folder / "copy", data.CopySettings(
            arguments.short_side, arguments.quality), threads=arguments.threads)
        seconds = time.perf_counter() - began
        copy = data.open_dataset(f"records:{folder / 'copy'}")
        splits = {"folder": large.train, "wds": shards.train, "records": copy.train}
        found: dict[str, list[float]] = {name: [] for name in splits}
        for which, value in rounds(splits, arguments):
            found[which].append(value)
        count = len(large.train) + len(large.eval)
        print(f"{os.cpu_count()} cores, {arguments.size} -> short side {arguments.short_side}, "
              f"crops of {arguments.image_size}")
        print(f"prepare   {count / seconds:8,.0f} images/s ({count} images)")
        for which, values in found.items():
            size = np.mean([len(splits[which].source.encoded(i)[0])
                            for i in range(len(splits[which]))])
            print(f"{which:9} {statistics.median(values):8,.0f} images/s, from {min(values):,.0f} "
                  f"to {max(values):,.0f}; {size / 1024:,.1f} KiB an image")
        print(f"look through a tar file: {1e6 * look_through(folder / 'many.tar'):.0f} us a member")
        print(f"records / folder: "
              f"{statistics.median(found['records']) / statistics.median(found['folder']):.2f}")


if __name__ == "__main__":
    main()
