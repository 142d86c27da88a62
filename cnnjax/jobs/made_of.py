"""What a traced function is made of, so that it can be recognised without a trace.

What JAX makes of a function is decided by code, by the values that the code is bound to, and by the
shapes it is called with. `digest` tells the last two apart and `code` the first, at a hundredth of
the price of a trace: a training step is a tree of closures and frozen dataclasses over numbers. Of
an object that is anything else nothing is claimed, and nothing of the user's own functions and
classes: what they do may depend on variables of theirs, of their file or of the environment.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import cnnjax
from cnnjax import ops

_PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes, np.dtype, np.generic)
_PLACES = (jax.sharding.Sharding, jax.sharding.PartitionSpec, jax.sharding.Mesh)
_ROOT = os.path.dirname(os.path.abspath(cnnjax.__file__))
_TRACED = [os.path.join(_ROOT, floor) for floor in ("models", "ops", "train")]
_INSTALLED = tuple(f"{folder}{os.sep}" for folder in (
    _ROOT, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))))
_SITES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")  # Others' too.
_OPEN = ("cnnjax", "flax", "jax", "optax")  # Where an experiment may put code of its own.


class _UnknownError(Exception):
    """An object of which it is not known what decides its behaviour."""


def digest(function: Callable, arguments: Any) -> str | None:
    """Returns a digest of what decides the trace of a function, but for the code of libraries.

    The trace is that of another process if the digest is, and if `unchanged` says so of its code.

    Args:
      function: a plain function or what `jax.jit` made of it. How it was jitted does not count.
      arguments: to call it with, arrays or their shapes, as a tuple.

    Returns:
      None if the function is bound to an object of which that is not known, code of the user's own
      stands in a library, or the program is not a file, but typed in.
    """
    if not getattr(sys.modules["__main__"], "__file__", None) or _is_patched():
        return None
    walk = _Walk()
    leaves, structure = jax.tree.flatten(arguments)
    try:
        walk.add(getattr(function, "__wrapped__", function))
        walk.say(str(structure), ops.settings(), _own_code(), _environment())
    except (_UnknownError, OSError):
        return None
    for leaf in leaves:
        walk.say(str(leaf.shape), str(leaf.dtype), getattr(leaf, "weak_type", False),
                 str(getattr(leaf, "sharding", None)))
    return walk.digest()


class _Walk:
    """Goes over an object and all that it is bound to, once each."""

    def __init__(self):
        self._hash = hashlib.sha256()
        self._met: dict[int, tuple[int, Any]] = {}  # The object too, so that its id stays its own.

    def digest(self) -> str:
        return self._hash.hexdigest()

    def say(self, *words: Any) -> None:
        self._hash.update(repr(words).encode())

    def add(self, value: Any) -> None:
        """Says what there is to say of an object.

        Raises:
          _UnknownError: if it is of no kind that is known here.
        """
        if isinstance(value, _PLAIN):
            self.say(type(value).__name__, repr(value))
        elif id(value) in self._met:
            self.say("met", self._met[id(value)][0])
        else:
            self._met[id(value)] = len(self._met), value
            self._add_new(value)

    def _add_new(self, value: Any) -> None:
        if name := _global_name(value):
            self.say("global", name)
        elif isinstance(value, types.FunctionType):
            self._add_code(value.__code__)
            self._add_all("bound", [_content(cell) for cell in value.__closure__ or ()]
                          + [value.__defaults__, value.__kwdefaults__])
        elif isinstance(value, types.MethodType):
            self._add_all("method", [value.__func__, value.__self__])
        elif isinstance(value, types.ModuleType):
            self.say("module", value.__name__)
        elif isinstance(value, functools.partial):
            self._add_all("partial", [value.func, value.args, value.keywords])
        elif isinstance(value, Mapping):
            self._add_all("mapping", [type(value), *value.keys(), *value.values()])
        elif isinstance(value, (tuple, list)):
            self._add_all("sequence", [type(value), *value])
        elif isinstance(value, (set, frozenset)) and all(isinstance(v, _PLAIN) for v in value):
            self.say("set", sorted(map(repr, value)))
        elif isinstance(value, _PLACES):
            self.say("place", str(value), str(getattr(value, "devices", None))
                     if isinstance(value, jax.sharding.Mesh) else "")
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            self._add_all("dataclass", [type(value), *(
                getattr(value, field.name) for field in dataclasses.fields(value))])
        elif isinstance(value, (np.ndarray, jax.Array)) and value.dtype != object:
            array = np.asarray(value)
            self.say("array", array.shape, str(array.dtype), hashlib.sha256(array).hexdigest())
        else:
            raise _UnknownError(type(value))

    def _add_all(self, kind: str, values: Any) -> None:
        self.say(kind, len(values))
        for value in values:
            self.add(value)

    def _add_code(self, code: types.CodeType) -> None:
        if not _is_installed(code.co_filename):
            raise _UnknownError(code)
        # The text of the file stays the same while `unchanged` holds, so its lines name functions;
        # what follows is for two on one line.
        self.say("code", code.co_filename, code.co_firstlineno, code.co_names, code.co_code)
        for value in code.co_consts:
            if isinstance(value, types.CodeType):
                self._add_code(value)
            else:
                self.add(value)


def _global_name(value: Any) -> str | None:
    """Returns under which name a module holds an object, if it does: its code is then its file's.
    """
    try:
        module, name = value.__module__, value.__qualname__
    except AttributeError:
        return None
    if not (isinstance(module, str) and isinstance(name, str)):  # Of what has any attribute.
        return None
    found = home = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    file = _file(home) or ""
    known = _is_installed(file) or module in sys.builtin_module_names
    return f"{module}:{name}:{file}" if found is value and known else None


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # Not yet filled.
        return "empty"


def code() -> dict[str, tuple[int, int]] | None:
    """Returns the files of all modules that are imported, with bytes and time of change in ns.

    That is what Python goes by when it decides whether the compiled file of a module still holds.
    None if there is a module without a file of its own, as in an archive.
    """
    try:
        return {path: _state(path) for path in _files()}
    except OSError:
        return None


def unchanged(files: Mapping[str, tuple[int, int]] | None) -> bool:
    """Whether all that `code` named is still as it was."""
    try:
        return files is not None and all(_state(path) == state for path, state in files.items())
    except OSError:
        return False


def _state(path: str) -> tuple[int, int]:
    """Returns bytes and time of change of a file.

    Raises:
      OSError: if there is none, or it was put there after this process may have imported another.
    """
    found = os.stat(path)
    if max(found.st_mtime_ns, found.st_ctime_ns) >= cnnjax.IMPORTED_NS:
        raise OSError(f"{path} has changed.")
    return found.st_size, found.st_mtime_ns


def _file(module: Any) -> str | None:
    # Not what a module computes when it is asked, which may import others.
    return module.__dict__.get("__file__") if isinstance(module, types.ModuleType) else None


def _files() -> list[str]:
    found = [_file(module) for module in list(sys.modules.values())]
    return [os.path.abspath(path) for path in found if path]


def _is_installed(path: str) -> bool:
    return path.startswith(_INSTALLED) or any(site in path for site in _SITES)


def _own_code() -> list[str]:
    """Returns the user's own files: an experiment's may change what a library's function does."""
    return sorted(path for path in set(_files()) if not _is_installed(path))


def _environment() -> list[tuple[str, str]]:
    """Returns the environment variables that are named in what is traced or in the user's own
    files: whoever works on a model may switch a part of it by one."""
    files = [path for folder in _TRACED for path in Path(folder).rglob("*.py")]
    files += [Path(path) for path in _own_code() if not path.endswith((".so", ".pyd"))]
    texts = [path.read_text(errors="replace") for path in files]
    return sorted((name, value) for name, value in os.environ.items()
                  if len(name) > 1 and any(name in text for text in texts))  # "_" is in all.


def _is_patched() -> bool:
    """Whether a name of a library, or of a class of one, stands for code of the user's own."""
    own = {name for name, module in list(sys.modules.items())
           if (file := _file(module)) and not _is_installed(file)}
    files = set()
    for value in _open_names():
        if isinstance(value, types.FunctionType):
            files.add(value.__code__.co_filename)
        if str(getattr(value, "__module__", None)) in own:
            return True
    return not all(_is_installed(path) for path in files if not path.startswith("<"))


def _open_names() -> Iterator[Any]:
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in _OPEN and "._src" not in name and _file(module):
            for value in list(vars(module).values()):
                yield value
                if isinstance(value, type):
                    yield from list(vars(value).values())
