"""Files of weights: their tensors by name, and what they say about themselves."""

from __future__ import annotations

import dataclasses
import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from cnnjax.types import UserError
from cnnjax.weights import torch_file
from cnnjax.weights.pickles import Refused

EXTENSIONS = (".safetensors", ".pth", ".pt", ".th", ".bin", ".tar")
# Under which training scripts keep the parameters, the best ones first.
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net")
# Which wrappers (DataParallel, torch.compile) put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16, "I64": "<i8",
           "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}


@dataclasses.dataclass(frozen=True)
class StateDict:
    """Tensors by the names that the file gives them, and its metadata.

    Attributes:
      tensors: name -> array, of any dtype; without `num_batches_tracked`. They are views of the
        mapped file, read-only: what is not used is not read, and what is takes no memory.
      metadata: texts that a safetensors file carries; {} for other files.
      where: the file, for messages.
    """

    tensors: Mapping[str, np.ndarray]
    metadata: Mapping[str, str]
    where: str


def read(path: Path) -> StateDict:
    """Reads .safetensors, or what torch.save wrote, executing nothing in it.

    A state dict may lie under "state_dict", "model" and the like, and its names may all begin with
    "module."; where there are averaged weights as well, those are taken, as timm does.

    Raises:
      UserError: if the file is not there, is none of these, is damaged, or is refused.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    if path.suffix not in EXTENSIONS:
        raise UserError(f"{path} is no file of weights: its name ends in none of "
                        f"{', '.join(EXTENSIONS)}.")
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
    else:
        tensors, metadata = _read_torch(path), {}
    for prefix in _PREFIXES * 2:  # In either order.
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    tensors = {name: array for name, array in tensors.items()
               if not name.endswith("num_batches_tracked")}
    if not tensors:
        raise UserError(f"{path} holds no tensors.")
    return StateDict(tensors, metadata, str(path))


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
        with path.open("rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}. Download it "
                        "again.") from None
    # By hand, because the package's NumPy reader has no bfloat16.
    start, tensors = 8 + int.from_bytes(whole[:8], "little"), {}
    for name, entry in json.loads(whole[8:start]).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _DTYPES:
            raise UserError(f"{path}: {name} has values of {entry['dtype']}, which no model here "
                            "has.")
        tensors[name] = np.frombuffer(
            whole, _DTYPES[entry["dtype"]], math.prod(entry["shape"]),
            start + entry["data_offsets"][0]).reshape(entry["shape"])
    return tensors, metadata


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    state = _state_dict(torch_file.read(path), path)
    try:
        return {name: tensor.array() for name, tensor in state.items()
                if isinstance(tensor, torch_file.Tensor)}
    except Refused as error:
        raise UserError(f"{path} is refused: {error}. Nothing in it was executed.") from None


def _state_dict(content: Any, path: Path) -> dict[str, Any]:
    """Returns the dictionary of tensors under a name that scripts use, else the top one."""
    for _ in range(3):
        if not isinstance(content, dict):
            break
        # Inner ones first: a script may keep its best accuracy beside them, as a tensor.
        inner = [content[name] for name in _NESTED if isinstance(content.get(name), dict)]
        if not inner and any(isinstance(v, torch_file.Tensor) for v in content.values()):
            return {name: value for name, value in content.items() if isinstance(name, str)}
        content = next((one for one in inner if one), None)
    raise UserError(f"{path} holds no state dict: neither at the top nor under one of "
                    f"{', '.join(_NESTED)} is there a dictionary of tensors.")
