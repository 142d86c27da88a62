"""Reads what torch.save wrote, without torch and without executing anything in it.

Two formats. Since torch 1.6 a file is a zip archive, uncompressed: NAME/data.pkl, a pickle in which
each tensor names a storage, and NAME/data/KEY, the raw values of that storage. Before, it was a row
of pickles (a magic number, the protocol, the machine, the object, the keys of the storages), then
each storage as an int64 count and its raw values. A tensor is a storage's key, an offset, a shape
and strides; all of them are checked against what is really there before an array is made.
"""

from __future__ import annotations

import dataclasses
import io
import math
import mmap
import os
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from cnnjax.types import UserError
from cnnjax.weights.pickles import Inert, Name, Reader, Refused

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2",
           "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": "<i8", "IntStorage": "<i4",
           "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?"}
# Beyond what any file holds; NumPy has at most 64 axes, and a state dict uses 5.
_LARGEST, _MOST_AXES = 2**48, 16
_CHUNK = 1 << 20


@dataclasses.dataclass
class _Storage:
    """A run of values; `values` comes after the pickle in the old format."""

    key: str
    dtype: np.dtype
    count: int
    values: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage that has not been looked at yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Returns the values, read-only.

        Raises:
          Refused: if the view reaches beyond its storage or says a value twice.
        """
        values, count = self.storage.values, math.prod(self.shape)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides,
                                                             strict=True))
        if values is None or not self.offset <= last < len(values):
            raise Refused(f"a tensor of shape {self.shape} reaches beyond the "
                          f"{0 if values is None else len(values):,} values of its storage")
        if count > len(values):
            raise Refused(f"a tensor of shape {self.shape} repeats the {len(values):,} values of "
                          "its storage")
        if not count:
            raise Refused(f"a tensor of shape {self.shape} is empty")
        # The stride of an axis of one is never used, so the check above has not bounded it.
        strides = [s * values.itemsize if n > 1 else 0
                   for n, s in zip(self.shape, self.strides, strict=True)]
        return np.lib.stride_tricks.as_strided(values[self.offset:], self.shape, strides,
                                               writeable=False)


def read(path: Path) -> Any:
    """Returns the object in a file of torch.save; each tensor in it is a `Tensor`.

    Raises:
      UserError: if it is no such file, is damaged, or holds anything but plain containers, numbers
        and tensors. The message says that nothing was executed.
    """
    with open(path, "rb") as file:
        try:
            if file.read(4) == b"PK\3\4":
                return _read_zip(file)
            # Mapped, so that a length that the file claims allocates nothing.
            return _read_legacy(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except Refused as error:
            raise UserError(
                f"{path} is refused: {error}. Weights are plain tensors, and nothing in the file "
                "was executed. If you trust it, load it with torch and save model.state_dict() "
                "as safetensors.") from None
        # What zipfile and pickletools raise for bytes that are not what they expect.
        except (ValueError, LookupError, ArithmeticError, EOFError, OSError, RuntimeError,
                struct.error, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is not a whole file of torch.save: {error}. Download it "
                            "again.") from None


def _read_zip(file: IO[bytes]) -> Any:
    mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    with zipfile.ZipFile(file) as archive:
        entries = _entries(archive, os.fstat(file.fileno()).st_size)
        pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused(f"its archive has {len(pickles)} entries data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in entries else b"little"
        if order != b"little":
            raise Refused("its values are in the order of a big-endian machine")
        storages: dict[str, _Storage] = {}

        def persistent(identifier: Any) -> _Storage:
            storage = _described(identifier, storages)
            if storage.values is None:
                name = f"{folder}data/{storage.key}"
                if name not in entries:
                    raise Refused(f"its archive has no storage {storage.key[:80]!r}")
                storage.values = _values(storage, _stored(archive, name, mapped))
            return storage

        return _reader(persistent).read(io.BytesIO(archive.read(pickles[0])))


def _entries(archive: zipfile.ZipFile, size: int) -> frozenset[str]:
    """Returns the names in an archive that is laid out as torch lays it out."""
    names = [entry.filename for entry in archive.infolist()]
    if any(name.rpartition("/")[2] == "constants.pkl" for name in names):
        raise Refused("it is a TorchScript program, not a state dict")
    if len(set(names)) < len(names):
        raise Refused("its archive has two entries of one name")
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise Refused("its archive is compressed or encrypted, as torch's never is")
    # Stored entries are as long as they say; more in sum than the file means that they overlap.
    if sum(entry.file_size for entry in archive.infolist()) > size:
        raise Refused("the entries of its archive are longer than the file")
    return frozenset(names)


def _stored(archive: zipfile.ZipFile, name: str, mapped: memoryview) -> memoryview:
    """Returns an entry, uncompressed, as a part of the mapped file, once its checksum is right."""
    length = 0
    with archive.open(name) as entry:
        while chunk := entry.read(_CHUNK):
            length += len(chunk)
    header = archive.getinfo(name).header_offset
    # Before the values stand 30 bytes, the name and an extra field.
    start = header + 30 + sum(struct.unpack("<HH", mapped[header + 26:header + 30]))
    return mapped[start:start + length]


def _read_legacy(file: mmap.mmap) -> Any:
    storages: dict[str, _Storage] = {}
    header = [_reader(_no_storage).read(file) for _ in range(2)]
    if header != [_MAGIC, _PROTOCOL]:
        raise Refused("it does not begin as files of torch.save do")
    machine = _reader(_no_storage).read(file)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused("its values are in the order of a big-endian machine")
    content = _reader(lambda identifier: _described(identifier, storages)).read(file)
    keys = _reader(_no_storage).read(file)
    for key in keys if isinstance(keys, list) else ():
        storage = storages.get(key) if isinstance(key, str) else None
        count = int.from_bytes(file.read(8), "little")
        if storage is None or count != storage.count:
            raise Refused("a storage is not the one that the tensors name")
        length, left = count * storage.dtype.itemsize, len(file) - file.tell()
        if length > left:
            raise ValueError(f"a storage of {count:,} values has {left:,} bytes left")
        # A view of the mapped file: what no tensor needs is never read.
        storage.values = np.frombuffer(file, storage.dtype, count, file.tell())
        file.seek(length, os.SEEK_CUR)
    return content


def _values(storage: _Storage, data: memoryview) -> np.ndarray:
    if storage.count * storage.dtype.itemsize > len(data):
        raise Refused(f"a storage of {storage.count:,} values has {len(data):,} bytes")
    return np.frombuffer(data, storage.dtype, storage.count)


def _described(identifier: Any, storages: dict[str, _Storage]) -> _Storage:
    """Returns the storage of ("storage", type, key, device, count[, view]), one for each key."""
    if not isinstance(identifier, tuple) or len(identifier) not in (5, 6):
        raise Refused("a storage has no proper description")
    kind, dtype, key, _, count, *view = identifier
    if kind != "storage" or not isinstance(dtype, Name) or not isinstance(key, str):
        raise Refused("a storage has no proper description")
    if dtype.name not in _DTYPES:
        raise Refused(f"it has values of {dtype.name}, which no model here has")
    if any(part is not None for part in view):
        raise Refused("a storage is a view of another")
    storage = _Storage(key, np.dtype(_DTYPES[dtype.name]), _whole(count))
    known = storages.setdefault(key, storage)
    if (known.dtype, known.count) != (storage.dtype, storage.count):
        raise Refused(f"the storage {key[:80]!r} is described in two ways")
    return known


def _no_storage(identifier: Any) -> Any:
    raise Refused("there is a storage where none belongs")


def _reader(persistent) -> Reader:
    return Reader(_CALLS, _NAMES, persistent)


def _whole(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _LARGEST:
        raise Refused("a size is not a number from 0 up")
    return number


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    del rest  # requires_grad, hooks, metadata.
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or (
            not isinstance(strides, tuple)) or len(shape) != len(strides) or (
            len(shape) > _MOST_AXES):
        raise Refused("a tensor has no proper description")
    return Tensor(storage, _whole(offset), tuple(map(_whole, shape)), tuple(map(_whole, strides)))


def _parameter(data: Any, *rest: Any) -> Tensor:
    del rest
    if not isinstance(data, Tensor):
        raise Refused("a parameter is not a tensor")
    return data


def _ordered(items: Any = ()) -> dict:
    """An OrderedDict as Python 2 wrote it, with its items as pairs, or an empty one."""
    if not all(isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str)
               for item in items):
        raise Refused("a dictionary is built of something else than pairs")
    return {key: value for key, value in items}


# What a call in a pickle makes. Everything else is refused.
_CALLS = {
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): lambda sizes=(): tuple(sizes),
    ("torch", "device"): Inert,
    # Of training scripts: their options and their scores, which are of no use here.
    ("argparse", "Namespace"): Inert,
    ("numpy", "dtype"): Inert,
    ("numpy.core.multiarray", "scalar"): Inert,
    ("numpy._core.multiarray", "scalar"): Inert,
    ("_codecs", "encode"): Inert,
}
_NAMES = frozenset(
    {("torch", name) for name in _DTYPES}
    | {("torch", name) for name in ("float32", "float64", "float16", "bfloat16", "int64")})
