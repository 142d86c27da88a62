"""Writing a smaller copy of a set of photographs, once, that can be read and decoded faster."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnjax.cores import available_cores
from cnnjax.data import decode, records
from cnnjax.data.alone import alone
from cnnjax.data.array_record import write_array_record
from cnnjax.data.bad_examples import BadExample
from cnnjax.data.dataset import Dataset, Split
from cnnjax.files import expanded, write_json
from cnnjax.types import UserError

UNFINISHED = "unfinished.json"
_SUFFIX = ".array_record"
_LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class CopySettings:
    """How images are made smaller.

    Attributes:
      short_side: pixels; an image with a smaller one is copied byte for byte.
      quality: of JPEG, 1 to 100, of those that are not.
      shard_bytes: a file of the copy ends before it would have more, at least one image in it.
    """

    short_side: int = 256
    quality: int = 90
    shard_bytes: int = 256 * 2**20


def write_copy(source: Dataset, root: str | os.PathLike[str], output: str | os.PathLike[str],
               settings: CopySettings, *, threads: int = 0, keep_bad: bool = False,
               log: Callable[[str], None] = print) -> Path:
    """Writes the images of a data set, made smaller, as ArrayRecord files.

    The order and the labels stay, so that a run sees the same examples in the same order. Every
    image is decoded, those that are copied as they are too, so that a damaged one is found here.
    It is an error, or, with `keep_bad`, copied as it is: order and number stay, and a run that
    skips bad examples skips it.

    Each file gets its name when it is whole and on disk, and unfinished.json says how far the copy
    is; interrupted, the same call goes on after the last whole file. dataset.json comes last, and
    without it the folder is not taken for a copy.

    Args:
      source: its splits' sources have `encoded` and `labels`.
      root: what the names of images are given relative to.
      output: the folder to write; it is made.
      settings: how images are made smaller.
      threads: that decode, shrink and encode; 0 is one a core.
      keep_bad: whether to copy what cannot be decoded. It may be set when a copy is gone on with.
      log: called with lines for the user.

    Returns:
      The folder.

    Raises:
      BadExample: for the first image that cannot be decoded, unless `keep_bad`.
      UserError: if the folder cannot be written, holds something else or another copy, or is being
        written by another process.
    """
    folder = expanded(output)
    origin = {"source_fingerprint": source.fingerprint, "class_names": list(source.class_names),
              **dataclasses.asdict(settings)}
    with _writable(folder), alone(folder / _LOCK, folder):
        state = _begin(folder, origin, log)
        if state is None:
            log(f"{source.name} is prepared already: {folder}")
            return folder
        for role, split in (("train", source.train), ("val", source.eval)):
            _Writer(folder, role, split, os.path.abspath(root), settings, keep_bad, state).write(
                threads or available_cores(), log)
        about = _about(source, origin, state["splits"])
        write_json(folder / records.ABOUT, about)
        for path in _notes(folder):
            path.unlink()
    for role, split in about["splits"].items():
        bad = f"{split['unreadable']:,} unreadable, " if split["unreadable"] else ""
        size = _total(split["shards"], "bytes") / 2**20
        log(f"  {role}: {split['examples']:,} images, {split['resized']:,} of them made smaller, "
            f"{bad}{size:,.1f} MiB in {len(split['shards'])} files")
    return folder


def _about(source: Dataset, origin: dict[str, Any], written: dict[str, list[dict[str, Any]]]
           ) -> dict[str, Any]:
    """Returns what stands in dataset.json of a copy whose splits have these shards."""
    splits = {
        role: {"of": split.name, "examples": len(split), "resized": _total(shards, "resized"),
               "unreadable": _total(shards, "unreadable"),
               # Copies of different photos may come out alike: they are still to be cropped.
               "image_shape": split.image_shape and _common(
                   [shard["image_shape"] for shard in shards]),
               "shards": shards}
        for (role, shards), split in zip(written.items(), (source.train, source.eval), strict=True)}
    return {"format": records.FORMAT, "source": source.name, "divided": source.divided, **origin,
            "splits": splits}


def _total(shards: Iterable[dict[str, Any]], key: str) -> int:
    return sum(shard.get(key, 0) for shard in shards)


def _common(shapes: list[list[int] | None]) -> list[int] | None:
    """Returns the shape of all, None if they differ; [] is that of what cannot be decoded."""
    known = [shape for shape in shapes if shape != []] or [[]]
    return known[0] if all(shape == known[0] for shape in known) else None


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Turns errors of the file system into a UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}): make room and "
                        "run the same command, which goes on; or name another folder with "
                        "--config.prepare.output=DIR.") from error


def _begin(folder: Path, origin: dict[str, Any], log: Callable[[str], None]
           ) -> dict[str, Any] | None:
    """Returns how far the copy in a folder is, or None if it is whole.

    Raises:
      UserError: if something else is there.
    """
    other = (f"{folder} holds another copy, of other images or made with other settings. Delete "
             "it, or name another folder with --config.prepare.output=DIR.")
    if (folder / records.ABOUT).exists():
        about = records.read_about(str(folder), folder)
        if any(about.get(key) != value for key, value in origin.items()):
            raise UserError(other)
        return None
    state = _read_state(folder)
    names = {path.name for path in folder.iterdir()} - {
        _LOCK, *(path.name for path in _notes(folder))}
    strangers = [name for name in sorted(names) if not name.removesuffix(".new").endswith(_SUFFIX)]
    if strangers or (names and state is None):
        raise UserError(f"{folder} is not empty ({', '.join((strangers or sorted(names))[:3])}), "
                        "and not a copy that was begun. Name a folder for the copy alone with "
                        "--config.prepare.output=DIR.")
    if state and state["origin"] != origin:
        log(f"{folder} holds the beginning of another copy; it is begun anew.")
        state = None
    state = state or {"origin": origin, "splits": {"train": [], "val": []}}
    for role, shards in state["splits"].items():
        # What follows a file that is missing is written again, so that the order stays.
        state["splits"][role] = list(itertools.takewhile(
            lambda shard: _size(folder / shard["file"]) == shard["bytes"], shards))
    kept = {shard["file"] for shards in state["splits"].values() for shard in shards}
    for name in names - kept:
        (folder / name).unlink()
    write_json(folder / UNFINISHED, state)
    return state


def _notes(folder: Path) -> list[Path]:
    """Returns what there is of `UNFINISHED`, and files that a kill left half written."""
    return [*folder.glob(f"{UNFINISHED}*"), *folder.glob(f"{records.ABOUT}.*")]


def _read_state(folder: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((folder / UNFINISHED).read_text())
        for shards in (state["splits"]["train"], state["splits"]["val"]):
            for shard in shards:
                if os.path.basename(shard["file"]) != shard["file"]:
                    return None
        return state if "origin" in state else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


class _Copied(NamedTuple):
    """What becomes of one example."""

    record: bytes
    shape: list[int]  # Of the image; [] if it cannot be decoded.
    resized: bool  # Whether it was made smaller.
    problem: str  # Why it cannot be decoded; "" if it can.


class _Writer:
    """Writes the files of one split."""

    def __init__(self, folder: Path, role: str, split: Split, root: str, settings: CopySettings,
                 keep_bad: bool, state: dict[str, Any]):
        self.folder, self.role, self.split, self.root = folder, role, split, root
        self.settings, self.keep_bad, self.state = settings, keep_bad, state
        self.shards: list[dict[str, Any]] = state["splits"][role]

    def write(self, threads: int, log: Callable[[str], None]) -> None:
        """Writes what is not there yet."""
        first, count = _total(self.shards, "records"), len(self.split)
        if first:
            log(f"{self.role}: {first:,} of {count:,} images are there; going on.")
        began = said = time.monotonic()
        shard: list[_Copied] = []
        size = 0
        for number, found in enumerate(in_order(self._smaller, range(first, count), threads), 1):
            if shard and size + len(found.record) > self.settings.shard_bytes:
                self._finish(shard)
                shard, size = [], 0
            shard.append(found)
            size += len(found.record)
            if found.problem:
                log(f"Warning: {found.problem}. It is copied as it is (data.on_error=skip).")
            now = time.monotonic()
            if now - said > 10:
                said, rate = now, number / (now - began)
                log(f"{self.role}: {first + number:,} of {count:,} images, {rate:,.0f} images/s, "
                    f"{(count - first - number) / rate / 60:,.1f} min to go")
        if shard:
            self._finish(shard)

    def _smaller(self, index: int) -> _Copied:
        """Returns what becomes of an example."""
        source = self.split.source
        data, label, name = b"", int(source.labels[index]), ""
        try:
            data, label, name = source.encoded(index)
            image = decode.decode_image(data, name)
        except BadExample as error:
            if not self.keep_bad:
                raise error.of_a_data_set() from None
            # Printable wherever it is printed: a name may be none of UTF-8.
            problem = _bytes(f"{error.name} {error.reason}").decode(errors="replace")
            return _Copied(self._record(data, label, name or error.name), [], False, problem)
        small = shrink(image, self.settings.short_side)
        resized = small is not image
        if resized:
            data = encode_jpeg(small, self.settings.quality)
        return _Copied(self._record(data, label, name), list(small.shape), resized, "")

    def _record(self, data: bytes, label: int, name: str) -> bytes:
        from tensorflow_datasets.proto import tf_example_pb2

        example = tf_example_pb2.Example()
        features = example.features.feature
        features["image"].bytes_list.value.append(data)
        features["label"].int64_list.value.append(label)
        features["name"].bytes_list.value.append(_bytes(os.path.relpath(name, self.root)))
        # A map has no order of its own, and the same copy should have the same bytes.
        return example.SerializeToString(deterministic=True)

    def _finish(self, shard: list[_Copied]) -> None:
        """Writes a file, and then that it is there."""
        name = f"{self.role}-{len(self.shards):05d}{_SUFFIX}"
        path = self.folder / name
        write_array_record(path, [copied.record for copied in shard], compressed=False)
        self.shards.append({
            "file": name, "records": len(shard), "bytes": path.stat().st_size,
            "resized": sum(copied.resized for copied in shard),
            "unreadable": sum(bool(copied.problem) for copied in shard),
            "image_shape": _common([copied.shape for copied in shard])})
        write_json(self.folder / UNFINISHED, self.state)


def _bytes(name: str) -> bytes:
    """Returns the bytes of a name of a file, which may not be UTF-8."""
    return name.encode(errors="surrogateescape")


def shrink(image: np.ndarray, short_side: int) -> np.ndarray:
    """Returns an image uint8 [h, w, 3] with that short side, or the image if it has a smaller one.

    Shrinking averages over the pixels, as the loader's random crops do.
    """
    height, width = image.shape[:2]
    if min(height, width) <= short_side:
        return image
    scale = short_side / min(height, width)
    import cv2

    size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Returns the bytes of a JPEG of an image uint8 [H, W, 3]; `quality` is 1 to 100."""
    import cv2

    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def in_order(function: Callable[[int], Any], items: Iterable[int], threads: int) -> Iterator[Any]:
    """Yields function(item) in the order of the items, a few computed ahead by threads.

    OpenCV releases Python's lock while it decodes, shrinks and encodes.
    """
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 4 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
