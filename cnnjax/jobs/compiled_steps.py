"""Compiled training steps in files that have a name before the step is traced.

JAX's compilation cache knows a program by its text, so the step has to be traced and lowered before
it can be looked up, and loaded after that: for ResNet-50 on two cores 1.7 seconds and then one more
in which nothing else is left to do. Here the name is made of the config, so the step loads in a
thread while it is traced. What was loaded is used only if it was compiled from the same text.

On a CPU alone, where this was measured; for one device.
"""

from __future__ import annotations

import concurrent.futures
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

from cnnjax.jobs import backend, workdir

# With optax, whose types the files name, too: of two threads that import parts of one package at
# once, one may end in an error (_DeadlockError). So a file that loads finds all it names imported.
from cnnjax.train import state  # noqa: F401

_MOST_BYTES = 500_000_000  # Of all files together; ResNet-50's has 6 million.
_CHECKSUM = hashlib.sha256().digest_size  # It stands before the rest.


_begun: dict[Path, CompiledStep] = {}  # What `begin` loads, until `of` asks for it.


def begin(config: ConfigDict, folder: Path) -> None:
    """Begins to load the training step of a new run's first phase, for the next call of `of`.

    While the modules are imported that training needs. A run in the folder that goes on, perhaps in
    another phase, has no state to draw, and its step is loaded in time without this.
    """
    _begun.clear()  # Of runs that ended before they asked for it.
    if not workdir.has_checkpoints(folder) and (stored := of(config, 0)):
        _begun[stored.path] = stored


def of(config: ConfigDict, phase: int) -> CompiledStep | None:
    """Returns the training step of a phase, by its number, of runs of this config.

    None where such steps are not kept: on other devices, or without JAX's cache.
    """
    cache = jax.config.jax_compilation_cache_dir
    if not cache or jax.default_backend() != "cpu" or jax.device_count() > 1:
        return None
    # What decides how a text is compiled, and the config, which decides the text. With another seed
    # the text is the same.
    values = workdir.to_json(config)
    name = [values | {"seed": None, "seeds": None}, phase, jax.__version__,
            jaxlib.__version__, platform.platform(), sorted(backend.processor_flags()),
            os.environ.get("XLA_FLAGS"), str(sorted(jax.config.values.items()))]
    path = Path(cache) / "steps" / _digest(json.dumps(name, sort_keys=True))
    return _begun.pop(path, None) or CompiledStep(path)


class CompiledStep:
    """A file that may hold a compiled function. It begins to load at once, in a thread.

    Args:
      path: of the file. If it is absent, spoilt or another's, the function is compiled.
    """

    def __init__(self, path: Path):
        self.path = path
        # Of a folder that cannot be searched `path.exists` would raise an error.
        self._loading = in_thread(_load, path) if os.path.exists(path) else None

    def wait(self) -> None:
        """Returns when nothing is being loaded."""
        if self._loading is not None:
            self._loading.result()

    def compile(self, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        """Returns the compiled function, from the file or, if it is not there, from the compiler.

        What the compiler made is written for the next time, after this has returned.
        """
        digest = _digest(lowered.as_text())
        if self._loading is not None:
            stored, compiled = self._loading.result()
            if stored == digest and (compiled.in_tree, compiled.out_tree) == (
                    lowered.in_tree, lowered.out_tree):
                return compiled
        _written.programs = 0
        compiled = lowered.compile()
        if _written.programs:  # A program that came out of JAX's cache cannot be written again.
            in_thread(_store, self.path, digest, compiled)
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


def _load(path: Path) -> tuple[str | None, jax.stages.Compiled | None]:
    """Returns the digest of the text and what was compiled from it; None each if that fails."""
    try:
        content = memoryview(path.read_bytes())
        if hashlib.sha256(content[_CHECKSUM:]).digest() != content[:_CHECKSUM]:
            return None, None  # What is spoilt could end the process instead of raising an error.
        digest, *program = pickle.loads(content[_CHECKSUM:])
        compiled = serialize_executable.deserialize_and_load(*program)
        os.utime(path)  # The least recently used are removed first.
    except Exception:  # Of several libraries, each in its own words.
        return None, None
    return digest, compiled


def _store(path: Path, digest: str, compiled: jax.stages.Compiled) -> None:
    """Writes the file, and removes the oldest if there are too many bytes."""
    try:
        content = pickle.dumps((digest, *serialize_executable.serialize(compiled)))
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
    except Exception:  # As above: a cache that cannot be written only saves nothing.
        return


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
