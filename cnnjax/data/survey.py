"""What a split holds: sizes, classes, statistics, duplicates, and what cannot be read."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import threading

import numpy as np

from cnnjax.data import augment, dataset, decode, host
from cnnjax.data.bad_examples import BadExample, Problem
from cnnjax.data.dataset import Split
from cnnjax.data.reader import Reader
from cnnjax.data.sizes import opened

# Images that a thread holds, which may be large: rows of a call of the device, which compiles once.
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a split holds.

    Attributes:
      split: which.
      labels: int32 [N]; -1 where the example cannot be read.
      sizes: int32 [N, 2], height and width; 0 there.
      digests: of the pixels of each example; None there.
      kinds: how often a file is, say, "JPEG RGB" or "PNG I;16"; without files, how often an image
        is grey, RGB or of another number of channels.
      mean: per channel, of the images as the model gets them, in [0, 1], before normalisation.
      std: likewise.
      num_bytes: on disk, None if that is not known.
      problems: (index, name, reason) of each example that cannot be read.
    """

    split: Split
    labels: np.ndarray
    sizes: np.ndarray
    digests: tuple[bytes | None, ...]
    kinds: collections.Counter
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_bytes: int | None
    problems: tuple[Problem, ...]

    def name(self, index: int) -> str:
        """Returns the file of an example, or "train[7]"."""
        return self.split.name_of(index)


def survey(split: Split, image_size: tuple[int, int], crop: float, interpolation: str,
           threads: int = 0) -> Survey:
    """Reads a whole split and describes it.

    Args:
      split: what to read.
      image_size: (H, W) that the model takes.
      crop: share of the side that is kept of images of different sizes.
      interpolation: "bilinear" or "bicubic".
      threads: that read and decode; 0 for one a core.

    Raises:
      UserError: if no example can be read.
    """
    count, reader = len(split), Reader(split, skip=True)
    labels, sizes = np.full(count, -1, np.int32), np.zeros((count, 2), np.int32)
    digests: list[bytes | None] = [None] * count
    kinds, problems, sums = collections.Counter(), [], np.zeros((3, split.channels))
    fit = None if split.image_shape else host.HostTransform(image_size, crop, interpolation)
    lock = threading.Lock()

    def read_batch(rows: range) -> None:
        images, found, kind_of = [], [], collections.Counter()
        for i, example in zip(rows, reader.each(rows), strict=True):
            if isinstance(example, BadExample):
                found.append((i, example.name, example.reason))
                continue
            image, labels[i] = example
            sizes[i] = image.shape[:2]
            digests[i] = hashlib.blake2b(image.tobytes() + bytes(str(image.shape), "ascii"),
                                         digest_size=16).digest()
            kind_of[_kind(split.source.encoded(i)[0]) if hasattr(split.source, "encoded")
                    else _CHANNELS.get(image.shape[-1], f"{image.shape[-1]} channels")] += 1
            images.append(image if fit is None else fit(image, 0, i))
        added = _sums(np.stack(images), image_size, interpolation) if images else 0
        with lock:
            problems.extend(found)
            kinds.update(kind_of)
            sums[:] += added

    def read(rows: range) -> None:
        for start in range(0, len(rows), _BATCH):
            read_batch(rows[start:start + _BATCH])

    dataset.in_blocks(read, count, threads)
    reader.check_some(len(problems))
    return Survey(split, labels, sizes, tuple(digests), kinds, *_mean_and_std(sums),
                  getattr(split.source, "num_bytes", None), tuple(sorted(problems)))


_CHANNELS = {1: "grey", 3: "RGB"}


def duplicates(*surveys: Survey) -> list[list[tuple[Survey, int]]]:
    """Returns the groups of examples, two or more, whose pixels are equal, largest first."""
    groups = collections.defaultdict(list)
    for part in surveys:
        for i, digest in enumerate(part.digests):
            if digest is not None:
                groups[digest].append((part, i))
    return sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)


def _sums(images: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Returns float64 [3, C]: sums of pixels and of their squares, and the number of pixels.

    Images uint8 [b, h, w, C] of another size are resized on the device, as in a step.
    """
    rows = len(images)
    if images.shape[1:3] != tuple(size):
        images = np.pad(images, ((0, _BATCH - rows), (0, 0), (0, 0), (0, 0)))
        images = np.asarray(augment.resize(images, size, interpolation))[:rows]
    sums = np.zeros((3, images.shape[-1]))
    for image in images:
        values = image.reshape(-1, image.shape[-1]).astype(np.float64)
        sums += values.sum(0), (values * values).sum(0), np.full(values.shape[1], len(values))
    return sums


def _mean_and_std(sums: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, square = sums[0] / (255 * sums[2]), sums[1] / (255**2 * sums[2])
    return tuple(mean.tolist()), tuple(np.sqrt(np.maximum(square - mean**2, 0)).tolist())


def _kind(data: bytes) -> str:
    try:
        with opened(io.BytesIO(data)) as image:
            turned = ", turned by EXIF" if image.getexif().get(decode.ORIENTATION, 1) != 1 else ""
            return f"{image.format} {image.mode}{turned}"
    except Exception:  # OpenCV has read it, all the same.
        return "unknown to Pillow"
