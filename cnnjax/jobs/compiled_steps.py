"""Compiled training steps in files that have a name before the step is traced.

JAX's compilation cache knows a program by its text, so the step has to be traced and lowered before
it can be looked up, and loaded after that: for ResNet-50 on two cores 1.7 seconds and then one more
in which nothing else is left to do. Here the name is made of the config, so the step loads in a
thread from the beginning. What was loaded is used if the step is made of the same as the one that
was compiled, down to the code of all that was imported (`made_of`). If that cannot be said, or is
not so, the step is traced, and what was loaded is used if it was compiled from the same text.

On a CPU alone, where this was measured; for one device.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import pickle
import platform
import threading
from pathlib import Path

import jax
import jaxlib
from jax.experimental import serialize_executable
from ml_collections import ConfigDict

from cnnjax.jobs import backend, made_of, workdir

# With optax, whose types the files name, too: of two threads that import parts of one package at
# once, one may end in an error (_DeadlockError). So a file that loads finds all it names imported.
from cnnjax.train import state  # noqa: F401

_MOST_BYTES = 500_000_000  # Of all files together; ResNet-50's has 6 million.
_CHECKSUM = hashlib.sha256().digest_size  # It stands before the rest.


DRAW = "draw"  # Of the first state.
_begun: dict[Path, CompiledStep] = {}  # What `begin` loads, until `of` asks for it.


def begin(config: ConfigDict, folder: Path) -> None:
    """Begins to load what a new run calls first, for the next calls of `of`.

    While the modules are imported that training needs. A run in the folder that goes on, perhaps in
    another phase, has no state to draw, and its step is loaded in time without this.
    """
    _begun.clear()  # Of runs that ended before they asked for it.
    if not workdir.has_checkpoints(folder):
        for what in (DRAW, 0):
            if stored := of(config, what):
                _begun[stored.path] = stored


def of(config: ConfigDict, what: int | str) -> CompiledStep | None:
    """Returns the training step of a phase, by its number, or `DRAW`, of runs of this config.

    None where such programs are not kept: on other devices, or without JAX's cache.
    """
    cache = jax.config.jax_compilation_cache_dir
    if not cache or jax.default_backend() != "cpu" or jax.device_count() > 1:
        return None
    # What decides how a text is compiled, and the config, which decides the text. With another seed
    # the text is the same.
    values = workdir.to_json(config)
    name = [values | {"seed": None, "seeds": None}, what, jax.__version__,
            jaxlib.__version__, platform.platform(), sorted(backend.processor_flags()),
            os.environ.get("XLA_FLAGS"), str(sorted(jax.config.values.items()))]
    path = Path(cache) / "steps" / _digest(json.dumps(name, sort_keys=True))
    return _begun.pop(path, None) or CompiledStep(path)


@dataclasses.dataclass(frozen=True)
class _Stored:
    """What a file holds.

    Attributes:
      text: digest of what was compiled.
      made_of: what `made_of.digest` said of the function; None if nothing.
      code: what `made_of.code` said when it had been traced.
      program: the rest, as `serialize_executable` gave it, pickled.
    """

    text: str
    made_of: str | None
    code: dict[str, tuple[int, int]] | None
    program: bytes


class CompiledStep:
    """A file that may hold a compiled function. It begins to load at once, in threads.

    Args:
      path: of the file. If it is absent, spoilt or another's, the function is compiled.
    """

    def __init__(self, path: Path):
        self.path, self._read, self._loaded = path, None, None
        if os.path.exists(path):  # Of a folder that cannot be searched `path.exists` raises errors.
            self._read = in_thread(_read, path)
            self._loaded = in_thread(_load, path, self._read)

    def wait(self) -> None:
        """Returns when nothing is being loaded."""
        if self._loaded is not None:
            self._loaded.result()

    def holds(self, digest: str | None) -> bool:
        """Whether the file has what was compiled of the function of this `made_of.digest`.

        If so, `recall` gives it, and nothing needs to be traced.
        """
        stored = self._read and self._read.result()
        # Asked now that all is imported: a file may have changed since this one was read.
        return bool(stored and digest) and stored.made_of == digest and made_of.unchanged(
            stored.code)

    def recall(self) -> jax.stages.Compiled | None:
        """Returns what the file holds. None if that cannot be loaded: the file goes then."""
        compiled = self._loaded.result()
        if compiled is None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
        return compiled

    def compile(self, lowered: jax.stages.Lowered, digest: str | None = None
                ) -> jax.stages.Compiled:
        """Returns the compiled function, from the file or, if it is not there, from the compiler.

        What the compiler made is written for the next time, after this has returned.

        Args:
          lowered: the function, traced.
          digest: its `made_of.digest`, by which it can be recognised without that.
        """
        text, stored = _digest(lowered.as_text()), self._read and self._read.result()
        if stored and stored.text == text and (compiled := self._loaded.result()) and (
                compiled.in_tree, compiled.out_tree) == (lowered.in_tree, lowered.out_tree):
            if digest and not self.holds(digest) and (code := made_of.code()):
                # Code has changed that did not change the text.
                in_thread(_write, self.path, dataclasses.replace(
                    stored, made_of=digest, code=code))
            return compiled
        _written.programs = 0
        compiled = lowered.compile()
        if _written.programs:  # A program that came out of JAX's cache cannot be written again.
            in_thread(_store, self.path, text, digest, made_of.code(), compiled)
        return compiled


def _count_written(event: str, **_) -> None:
    if event == "/jax/compilation_cache/cache_misses":  # Of a program that JAX's cache then keeps.
        _written.programs = getattr(_written, "programs", 0) + 1


_written = threading.local()  # JAX tells in the thread that compiles.
jax.monitoring.register_event_listener(_count_written)


def in_thread(function, *arguments, name: str = "") -> concurrent.futures.Future:
    """Calls a function in a thread of its own; the process does not end before it has.

    Unless its name is `interrupts.AHEAD`.
    """
    pool = concurrent.futures.ThreadPoolExecutor(1, name or function.__name__)
    future = pool.submit(function, *arguments)
    pool.shutdown(wait=False)
    return future


def _read(path: Path) -> _Stored | None:
    """Returns what the file holds, or None if that cannot be read."""
    try:
        content = memoryview(path.read_bytes())
        if hashlib.sha256(content[_CHECKSUM:]).digest() != content[:_CHECKSUM]:
            return None  # What is spoilt could end the process instead of raising an error.
        stored = _Stored(*pickle.loads(content[_CHECKSUM:]))
        # Of another version it may be anything.
        return stored if isinstance(stored.code, dict | None) else None
    except Exception:  # Of several libraries, each in its own words.
        return None


def _load(path: Path, reading: concurrent.futures.Future) -> jax.stages.Compiled | None:
    """Returns the function that was read, or None if that fails."""
    try:
        compiled = serialize_executable.deserialize_and_load(
            *pickle.loads(reading.result().program))
        os.utime(path)  # The least recently used are removed first.
    except Exception:  # As above.
        return None
    return compiled


def _store(path: Path, text: str, digest: str | None, code: dict[str, tuple[int, int]] | None,
           compiled: jax.stages.Compiled) -> None:
    """Writes a file."""
    try:
        program = pickle.dumps(serialize_executable.serialize(compiled))
    except Exception:  # As above: a cache that cannot be written only saves nothing.
        return
    _write(path, _Stored(text, digest, code, program))


def _write(path: Path, stored: _Stored) -> None:
    """Writes a file, and removes the oldest if there are too many bytes."""
    try:
        content = pickle.dumps(dataclasses.astuple(stored))
        path.parent.mkdir(exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}")  # Another process may write it, too.
        try:
            beside.write_bytes(hashlib.sha256(content).digest() + content)
            beside.replace(path)
        finally:  # It must not keep the last bytes of a disk that is full.
            beside.unlink(missing_ok=True)
        kept = 0
        for file in sorted(path.parent.iterdir(), key=lambda f: f.stat().st_mtime, reverse=True):
            kept += file.stat().st_size
            if kept > _MOST_BYTES:
                file.unlink()
    except OSError:
        return


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
