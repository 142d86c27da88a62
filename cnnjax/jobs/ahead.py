"""Compiling in a thread: the first state and the first step side by side, and what is called next
while one trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from cnnjax import interrupts
from cnnjax.jobs import made_of
from cnnjax.jobs.compiled_steps import CompiledStep, in_thread
from cnnjax.jobs.experiment import Experiment
from cnnjax.jobs.phases import Phase
from cnnjax.train import step as step_lib

PyTree = Any


class Call:
    """A jitted function of which the compilation for certain shapes can be begun in a thread.

    What it computes does not depend on that: the executable is the one that the first call would
    make.

    Args:
      jitted: the function.
      stored: where it may lie compiled.
    """

    def __init__(self, jitted, stored: CompiledStep | None = None):
        self.jitted, self._stored = jitted, stored
        self._compiling = self._compiled = None

    def prepare(self, *arguments: PyTree, after: CompiledStep | None = None,
                calls: bool = False) -> None:
        """Begins to compile for arguments such as these, arrays or their shapes.

        If `after` is loading, what must be compiled waits for it: of two cores the trace of the
        step has one. If it `calls` with these arguments as well, the first call finds the result.
        """
        stored, lowered = self._stored, None
        digest = stored and made_of.digest(self.jitted, arguments)
        if stored is None or not stored.holds(digest):
            # Traced here, because what surrounds the trace, such as ops.using, is this thread's.
            lowered = self.jitted.lower(*arguments)

        def compiled():
            if lowered is not None and after is not None:
                after.wait()
            if lowered is None:
                compiled = stored.recall()
            else:
                compiled = stored.compile(lowered, digest) if stored else lowered.compile()
            return compiled, compiled(*arguments) if calls and compiled else None

        self._compiling = in_thread(compiled, name=interrupts.AHEAD)

    def __call__(self, *arguments: PyTree):
        if self._compiling is not None:
            (compiled, result), self._compiling = self._compiling.result(), None
            if result is not None:
                return result
            # What was compiled here JAX finds for the same shapes; what was loaded it does not.
            self._compiled = compiled if self._stored else None
        if self._compiled is not None:
            try:
                return self._compiled(*arguments)
            except TypeError:  # Other shapes, as of the last steps, when they are fewer.
                pass
        return self.jitted(*arguments)


def make_call(experiment: Experiment, phase: Phase, fetch: Callable,
              stored: CompiledStep | None = None) -> Call:
    """Returns the training step of a phase."""
    return Call(jitted_call(experiment, phase, fetch), stored)


def jitted_call(experiment: Experiment, phase: Phase, fetch: Callable):
    """Returns the same as `jax.jit` gave it."""
    sharding = experiment.state_sharding(experiment.abstract_state_at(phase.stop))
    return step_lib.make_train_call(phase.task, fetch, experiment.mesh, sharding)


def compiling(call: Call, following: Call, image_size: tuple[int, int]) -> Callable:
    """Returns `call`, which at its first use begins to compile the one that follows it.

    Args:
      call: of this phase.
      following: of the next, whose state is the same.
      image_size: (H, W) of the images that come to the next, if they come from the host.
    """
    begun = []

    def first(state, constants, batch):
        if not begun:
            begun.append(True)
            following.prepare(*jax.tree.map(_struct, (state, constants)),
                              {name: _struct(array, image_size if name == "image" else None)
                               for name, array in batch.items()})
        return call(state, constants, batch)

    return first


def ending(call: Call, batches: Iterable[tuple[int, PyTree]],
           shapes: dict[str, jax.ShapeDtypeStruct]
           ) -> tuple[Callable, Iterator[tuple[int, PyTree]]]:
    """Returns both; who asks for the second batch begins to compile for the last.

    By then the device is at work on the first, so it does not wait for the trace, and the time of
    the first call, from which throughput counts, does not contain it.

    Args:
      call: of a phase whose steps are no multiple of those of a call.
      batches: of `Feed.batches`.
      shapes: of the batch of the last call, which has fewer steps.
    """
    last, structs = Call(call.jitted), []

    def either(state, constants, batch):
        if _steps(batch) == _steps(shapes):
            return last(state, constants, batch)
        if not structs:
            structs.extend(jax.tree.map(_struct, (state, constants)))
        return call(state, constants, batch)

    def watched():
        for number, batch in enumerate(batches):
            if number == 1:
                last.prepare(*structs, shapes)
            yield batch

    return either, watched()


def _steps(batch: PyTree) -> int:
    return jax.tree.leaves(batch)[0].shape[0]


def _struct(array: Any, size: tuple[int, int] | None = None) -> jax.ShapeDtypeStruct:
    shape = array.shape if size is None else (*array.shape[:2], *size, *array.shape[4:])
    # NumPy arrays, the indices of resident data, go along with the call.
    return jax.ShapeDtypeStruct(shape, array.dtype, sharding=getattr(array, "sharding", None))
