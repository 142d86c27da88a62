"""Where images lie in tar files: found out once, by Python's `tarfile`, and kept beside them.

A tar file has no table of contents, so an example by number needs an index. That of a shard is
valid while its size and time of change are those that it was made from.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from cnnjax import files
from cnnjax.cores import available_cores
from cnnjax.data import dataset
from cnnjax.data.sizes import image_size
from cnnjax.types import UserError

BLOCK = 512  # Bytes; a header is one block, and the data of a member begin on one.
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7": "unxz", b"(\xb5": "unzstd"}
_SPOKEN_OF = 2**30  # Bytes that take more than a few seconds to go through.
# What a header of any bytes may make of tarfile; the last for a long name of an impossible length.
_DAMAGE = (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError)


@dataclasses.dataclass(frozen=True, eq=False)
class Shard:
    """The images of one tar file, in its order.

    Attributes:
      path: of the file.
      stamp: (bytes, nanoseconds of the last change) of the file before it was looked through.
      offsets: int64 [n], where the bytes of each image begin.
      sizes: int64 [n], how many they are.
      labels: int32 [n].
      digest: of the names, sizes and labels of the images.
      shape: (H, W) if all images have it, else None.
    """

    path: str
    stamp: tuple[int, int]
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    digest: str
    shape: tuple[int, int] | None


class ShardBuilder:
    """Collects the images of a tar file into a `Shard`."""

    def __init__(self, path: str, file: BinaryIO):
        self._path, self._file = path, file
        # Of what is about to be read: a file may be changed or replaced meanwhile.
        self._stamp = stamp(file.fileno())
        self._rows: list[tuple[int, int, int]] = []
        self._names: list[str] = []
        self._shapes: set[tuple[int, int]] = set()

    def add(self, member: tarfile.TarInfo, label: int) -> None:
        """Adds an image. Its header is looked at only as long as all have had one size."""
        if not -2**31 <= label < 2**31:
            raise UserError(f"{self._path}: {member.name} has the label {label}, but classes are "
                            "numbered from 0.")
        if len(self._shapes) < 2:
            self._file.seek(member.offset_data)
            shape = image_size(io.BytesIO(self._file.read(member.size)))
            self._shapes |= {shape} - {None}  # Decoding will say what is wrong with that one.
        self._rows.append((member.offset_data, member.size, label))
        self._names.append(member.name)

    def shard(self) -> Shard:
        """Raises a UserError if there is no image."""
        if not self._rows:
            raise UserError(f"{self._path} holds no images: remove it, or write it again.")
        offsets, sizes, labels = np.array(self._rows, np.int64).T
        shape = self._shapes.pop() if len(self._shapes) == 1 else None
        return Shard(self._path, self._stamp, offsets, sizes, labels.astype(np.int32),
                     dataset.digest(self._names, sizes.tolist(), labels.tolist()), shape)


def stamp(file: str | int) -> tuple[int, int]:
    """Returns (bytes, nanoseconds of the last change) of a file: its path or its descriptor."""
    found = os.stat(file)
    return found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Opens a tar file. Raises a UserError if it cannot be, or is compressed."""
    try:
        with open(path, "rb") as file:
            head = file.read(BLOCK)
            tool = next((t for magic, t in _COMPRESSED.items() if head.startswith(magic)), None)
            if tool and head[257:262] != b"ustar":  # A tar begins with the name of its first file.
                raise UserError(f"{path} is compressed, so that no single image of it can be read. "
                                f"Images hardly shrink: undo it with {tool}.")
            yield file
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def members(path: str, file: BinaryIO, start: int = 0, end: int | None = None
            ) -> Iterator[tarfile.TarInfo]:
    """Yields the files in a tar file, without folders and hidden files.

    Nothing is ever extracted. That a name points outside of the archive is refused all the same:
    who made such a file wants it to be.

    Args:
      path: for messages.
      file: open. It may be read between two members, a tar in it too.
      start: where the tar begins: a tar may lie in another.
      end: where it ends at the latest; None is the end of the file.

    Raises:
      UserError: if it is damaged, cut short, or holds something else than plain files.
    """
    def damaged(why: object, where: int) -> UserError:
        why = str(why) or "a header of an impossible size"
        return UserError(f"{path} is not a tar file, is damaged, or was cut short ({why}, near "
                         f"byte {where:,}): copy or write it again.")

    limit = stamp(file.fileno())[0] if end is None else end
    file.seek(start)
    try:
        archive = tarfile.TarFile(fileobj=file)
    except _DAMAGE as error:
        raise damaged(error, start) from None
    last = start
    while True:
        try:
            member = archive.next()
        except _DAMAGE as error:
            raise damaged(error, last) from None
        if member is None:
            break
        if member.size < 0 or member.offset < last:  # It would go round for ever.
            raise damaged("a member has a negative size", last)
        last = member.offset_data
        archive.members = []  # It would keep them all.
        _check_member(path, member)
        if member.isreg() and member.offset_data + member.size > limit:
            raise damaged(f"{member.name!r} would be longer than the file", last)
        if member.isreg() and not PurePosixPath(member.name).name.startswith("."):
            yield member
    # For tarfile, a damaged header is the end as well; a whole archive ends in blocks of zeros.
    file.seek(archive.offset)
    whole = file.read(BLOCK) == bytes(BLOCK) and (end is None or archive.offset < end)
    if not whole:
        raise damaged("it does not end as a whole one does", archive.offset)


def _check_member(path: str, member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise UserError(f"{path}: the member {member.name!r} points outside of the archive. Do not "
                        "trust this file; write it again with names inside it.")
    if not member.isdir() and (not member.isreg() or member.issparse()):
        raise UserError(f"{path}: the member {member.name!r} is a link, a device or a sparse file. "
                        "Write it again with plain files (tar --dereference).")


def indexed(paths: Sequence[str], scan: Callable[[str], Shard], kind: str) -> list[Shard]:
    """Returns the shards of tar files, from their index where that is still right.

    It is kept in the folder of the first file, or in ~/.cache/cnnjax/index where that folder cannot
    be written. Whatever is wrong with an index, it is made anew.

    Args:
      paths: of the tar files.
      scan: path -> Shard. It is called by threads.
      kind: changes when what `scan` makes of a file does.

    Raises:
      UserError: whatever `scan` raises.
    """
    places = _index_places(paths, kind)
    stamps = {path: _stamp_or_none(path) for path in paths}
    # All places: one that cannot be written any more may hold what is out of date.
    shards = {path: shard for place in places for path, shard in _read_index(place, paths).items()
              if shard.stamp == stamps[path]}
    rest = [path for path in paths if path not in shards]
    if rest:
        size = sum((stamps[path] or (0, 0))[0] for path in rest)
        if size > _SPOKEN_OF:
            print(f"Looking through {len(rest)} tar files of {size / 2**30:,.1f} GiB, once.",
                  file=sys.stderr)
        with concurrent.futures.ThreadPoolExecutor(available_cores()) as pool:
            shards |= zip(rest, pool.map(scan, rest), strict=True)
        _write_index(places, [shards[path] for path in paths])
    return [shards[path] for path in paths]


def _stamp_or_none(path: str) -> tuple[int, int] | None:
    try:
        return stamp(path)
    except OSError:
        return None  # `scan` says it better.


def _index_places(paths: Sequence[str], kind: str) -> list[Path]:
    folder = os.path.dirname(os.path.abspath(paths[0]))
    # A folder that is moved keeps its index.
    beside = dataset.digest(kind, [os.path.relpath(path, folder) for path in paths])
    cached = dataset.digest(kind, [os.path.abspath(path) for path in paths])
    places = [Path(folder) / f".cnnjax-index-{beside}.npz"]
    if cache := files.cache("index"):
        places.append(cache / f"{cached}.npz")
    return places


def _read_index(place: Path, paths: Sequence[str]) -> dict[str, Shard]:
    try:
        with np.load(place, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about: list[dict[str, Any]] = json.loads(arrays["about"].tobytes())
        ends = np.cumsum([item["images"] for item in about])
        if any(len(arrays[name]) != ends[-1] for name in ("offsets", "sizes", "labels")):
            return {}
        parts = [np.split(arrays[name], ends[:-1]) for name in ("offsets", "sizes", "labels")]
        return {path: Shard(path, tuple(item["stamp"]), *arrays_of, item["digest"],
                            tuple(item["shape"]) if item["shape"] else None)
                for path, item, *arrays_of in zip(paths, about, *parts, strict=True)}
    except Exception:  # Of NumPy's, JSON's and zipfile's own kinds.
        return {}


def _write_index(places: Sequence[Path], shards: Sequence[Shard]) -> None:
    about = [{"stamp": shard.stamp, "digest": shard.digest, "shape": shard.shape,
              "images": len(shard.labels)} for shard in shards]
    buffer = io.BytesIO()
    np.savez(buffer, about=np.frombuffer(json.dumps(about).encode(), np.uint8),
             **{name: np.concatenate([getattr(shard, name) for shard in shards])
                for name in ("offsets", "sizes", "labels")})
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(place, buffer.getvalue())  # Several hosts may do this at once.
            return
        except OSError:
            continue  # Without an index the next start looks through the files again.
