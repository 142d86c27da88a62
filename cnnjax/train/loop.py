"""The loop around the jitted step: when things happen, and keeping the device busy meanwhile."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax.train import state as state_lib
from cnnjax.train.state import NO_STEP, TrainState

PyTree = Any
_LEAST = 0.1  # Seconds over which a throughput is measured, if there are as many.


class NonFiniteLossError(RuntimeError):
    """The loss, or a parameter, was not finite. `step` is the first step seen to be so."""

    def __init__(self, step: int, what: str):
        self.step = step
        super().__init__(f"the {what} is not finite at step {step}")


class Preempted(Exception):
    """The run was asked to stop; its state was saved at `step`."""

    def __init__(self, step: int):
        self.step = step
        super().__init__(f"stopped and saved at step {step}")


class EvaluationInterrupted(Exception):
    """A stop was asked for before all batches had been evaluated."""


@dataclasses.dataclass(frozen=True)
class Every:
    """Happens whenever a multiple of an interval is reached or passed, and at the last step.

    Intervals may be fractional (an epoch of 22.45 steps); without any it happens only at the end.
    `also` are steps at which it happens besides, such as the end of a phase.
    """

    intervals: tuple[float, ...]
    total: int
    also: tuple[int, ...] = ()

    def due(self, before: int, after: int) -> bool:
        """Whether it happens in the call that went from step `before` to step `after`."""
        if after >= self.total:
            return True
        for step in self.also:
            if before < step <= after:
                return True
        for interval in self.intervals:
            # A multiple such as 3 * 29.94 must be reached by its rounded-up step and by no other.
            if math.floor(after / interval + 1e-9) > math.floor(before / interval + 1e-9):
                return True
        return False


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When the loop logs, evaluates and saves, and where it stops (`stop` ≤ total)."""

    log: Every
    evaluate: Every
    save: Every
    stop: int

    def due(self, before: int, after: int) -> tuple[bool, bool, bool]:
        """Whether to log, to evaluate and to save after the call from step `before` to `after`.

        A run that stops early is measured and saved there, but goes on with the same log lines.
        """
        log, *others = (every.due(before, after) for every in (self.log, self.evaluate, self.save))
        return log, *(due or after >= self.stop for due in others)


@dataclasses.dataclass
class Hooks:
    """What the loop calls; the loop itself knows no files and no terminal.

    Attributes:
      on_step: (step) after every call of the device.
      on_record: (step, values) once for every step at which anything was measured, in order, with
        host numbers: "train_loss", "train_top1", "images_per_second", and what `evaluate` gave. Of
        a step that was only logged it comes some calls later, when the device has made it.
      evaluate: (state, should_stop) -> values of the evaluation, such as {"eval_loss": …}; may
        raise `EvaluationInterrupted` if the second says so.
      save: (step, state, values): must copy what it keeps before it returns. Of a state whose
        evaluation was interrupted the values are {"unmeasured_since": the step before the call}.
      should_stop: asked after every call; True saves, and raises `Preempted`.
    """

    on_step: Callable[[int], None]
    on_record: Callable[[int, dict[str, float]], None]
    evaluate: Callable[[TrainState, Callable[[], bool]], dict[str, float]]
    save: Callable[[int, TrainState, dict[str, float]], None]
    should_stop: Callable[[], bool]


def fit(call: Callable, state: TrainState, constants: PyTree,
        batches: Iterable[tuple[int, PyTree]], schedule: Schedule, hooks: Hooks, *,
        start_step: int, batch_size: int, unmeasured_since: int | None = None) -> TrainState:
    """Trains until the batches end, and returns the last state.

    Args:
      call: of `step.make_train_call`, jitted or compiled; donates its state.
      state: at `start_step`.
      constants: passed to every call, such as the resident data set.
      batches: (k, arrays with leading axes [k, B]), from `start_step` on.
      schedule: when to log, evaluate and save.
      hooks: what to call then.
      start_step: steps already done.
      batch_size: B, for the throughput.
      unmeasured_since: of a state that was saved so; what was not measured then is so first.

    Raises:
      NonFiniteLossError: at the first log or save after the loss stopped being finite. Nothing
        that came after is saved.
      Preempted: if `hooks.should_stop` said so; the state is saved.
    """
    step, meter, in_flight = start_step, None, _InFlight()
    if unmeasured_since is not None:
        state = _measure(state, unmeasured_since, step, schedule, hooks, None, hooks.should_stop())
    with concurrent.futures.ThreadPoolExecutor(1) as clock:
        for k, batch in in_flight.flushed_at_an_error(batches):
            state, losses = call(state, constants, batch)
            # The first call returns when it is compiled and the step has only begun.
            meter = meter or _Meter(step, batch_size)
            in_flight.add(losses)
            in_flight.keep_short()
            before, step = step, step + k
            hooks.on_step(step)
            stopping = hooks.should_stop()
            log, evaluate, save = schedule.due(before, step)
            if evaluate or save or stopping:
                in_flight.wait_for_all_but(0)
                state = _measure(state, before, step, schedule, hooks, meter, stopping)
            elif log:
                # The line is read later, so that the device need not halt for it. The time it
                # tells is that of the device, whether this thread waits for it or for its input.
                in_flight.afterwards(functools.partial(
                    _log, step, state.window, clock.submit(_ready_at, losses), hooks, meter))
                state = state.replace(window=_empty_window(state.window["loss"].sharding))
        in_flight.wait_for_all_but(0)
    return state


class _InFlight:
    """Calls that the device may not have done yet, and what is to be done when it has.

    The host runs two of them ahead of the device: enough that the device never waits, and few
    enough that batches don't pile up in its memory. Where they are short, it runs up to eight ahead
    and then waits for six. Each time that it wakes up, its code and JAX's come from the memory
    anew, and on a CPU they take the time from the device: of LeNet-5's steps, of 3 ms, 2 %.
    """

    _AHEAD, _MOST, _SHORT = 2, 8, 0.01  # Calls, calls, seconds of a call.

    def __init__(self):
        self._calls = collections.deque()  # (losses, what to do then, or None) each.
        self._most, self._waited = self._AHEAD, time.perf_counter()

    def add(self, losses: PyTree) -> None:
        self._calls.append((losses, None))

    def afterwards(self, then: Callable[[], None]) -> None:
        """Has something done when the last call is."""
        self._calls[-1] = self._calls[-1][0], then

    def keep_short(self) -> None:
        """Waits, if there are too many."""
        if len(self._calls) <= self._most:
            return
        waiting = len(self._calls) - self._AHEAD
        self.wait_for_all_but(self._AHEAD)
        # With the time that their input took: what comes slowly is logged call by call.
        before, self._waited = self._waited, time.perf_counter()
        short = self._waited - before < waiting * self._SHORT
        self._most = self._MOST if short else self._AHEAD

    def wait_for_all_but(self, calls: int) -> None:
        while len(self._calls) > calls:
            losses, then = self._calls.popleft()
            jax.block_until_ready(losses)
            if then is not None:
                then()

    def flushed_at_an_error(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yields the batches; what was logged before an error of theirs has its line all the same.
        """
        try:
            yield from batches
        except Exception:
            self.wait_for_all_but(0)
            raise


def _ready_at(losses: PyTree) -> float:
    jax.block_until_ready(losses)
    return time.perf_counter()


def _log(step: int, window: PyTree, ready: concurrent.futures.Future, hooks: Hooks,
         meter: _Meter) -> None:
    """Records the sums of a window that has been replaced in the state."""
    _check_loss(window)
    hooks.on_record(step, _read(window) | meter.read(step, ready.result()))


def _measure(state: TrainState, before: int, step: int, schedule: Schedule, hooks: Hooks,
             meter: _Meter | None, stopping: bool) -> TrainState:
    """Logs, evaluates and saves as is due after the call from step `before` to `step`."""
    log, evaluate, save = schedule.due(before, step)
    if not (log or evaluate or save or stopping):
        return state
    rate = meter.read(step, time.perf_counter()) if log and meter else {}
    with meter.paused() if meter else contextlib.nullcontext():
        _check_loss(state.window)
        if save or stopping:
            _check_finite(state, step)
        record, unlogged = {}, state
        if log:
            record = _read(state.window) | rate
            state = state.replace(window=_empty_window(state.window["loss"].sharding))
        if evaluate:
            # The end of a phase is measured by that phase alone, so there is no coming back to it.
            may_stop = (lambda: False) if step in schedule.evaluate.also else hooks.should_stop
            try:
                record |= hooks.evaluate(state, may_stop)
            except EvaluationInterrupted:
                hooks.save(step, unlogged, {"unmeasured_since": before})
                raise Preempted(step) from None
            if not math.isfinite(record.get("eval_loss", 0.0)):
                raise NonFiniteLossError(step, "loss of the evaluation")
        # The line stands before the checkpoint does, so that a run which resumes from the
        # checkpoint finds every line up to it.
        if record:
            hooks.on_record(step, record)
        if save or stopping:
            hooks.save(step, state, record)
    if stopping and step < schedule.stop:
        raise Preempted(step)
    return state


def evaluate(call: Callable, variables: PyTree, constants: PyTree,
             batches: Iterable[PyTree], sums: PyTree,
             should_stop: Callable[[], bool] = lambda: False) -> dict[str, float]:
    """Returns mean loss, top1 and top5 as fractions, and the number of examples that counted.

    Args:
      call: of `step.make_eval_call`.
      variables: {"params": …, "batch_stats": …}.
      constants: passed to every call.
      batches: "mask" is 0 in the rows that pad the last one.
      sums: of `step.empty_sums`.
      should_stop: asked before every batch.

    Raises:
      EvaluationInterrupted: if it said so.
    """
    in_flight = _InFlight()
    for batch in batches:
        if should_stop():
            raise EvaluationInterrupted
        sums = call(variables, constants, batch, sums)
        in_flight.add(sums["count"])
        in_flight.keep_short()
    sums = jax.device_get(sums)
    count = int(sums["count"])
    return {"loss": float(sums["loss"]) / count, "top1": int(sums["top1"]) / count,
            "top5": int(sums["top5"]) / count, "examples": count}


def _empty_window(sharding: jax.sharding.Sharding) -> PyTree:
    return _make_empty_window(sharding)()


@functools.lru_cache(8)
def _make_empty_window(sharding: jax.sharding.Sharding) -> Callable[[], PyTree]:
    # Made where it is to be: device_put would have all processes compare what they put.
    return jax.jit(state_lib.empty_window, out_shardings=sharding)


def _read(window: PyTree) -> dict[str, float]:
    sums = jax.device_get(window)
    count = int(sums["count"])
    if not count:  # Of a state that was saved when it had been logged.
        return {}
    return {"train_loss": float(sums["loss"]) / count, "train_top1": int(sums["top1"]) / count}


def _check_loss(window: PyTree) -> None:
    bad_step = int(window["bad_step"])
    if bad_step != NO_STEP:
        raise NonFiniteLossError(bad_step, "loss")


def _check_finite(state: TrainState, step: int) -> None:
    # A finite loss can have a gradient that is not; a checkpoint must not keep what that leaves.
    if not _all_finite((state.params, state.batch_stats, state.opt_state)):
        raise NonFiniteLossError(step, "state (parameters, batch statistics or optimizer)")


@jax.jit
def _all_finite(tree: PyTree) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)
                      if jnp.issubdtype(leaf.dtype, jnp.inexact)]).all()


class _Meter:
    """Throughput since the last reading, without what was paused (checks, evaluation, saving).

    Of readings that follow one another faster, since the last one that lies `_LEAST` seconds back:
    a thread may learn only after a short step that the one before it was done.
    """

    def __init__(self, step: int, batch_size: int):
        self._batch_size = batch_size
        self._start, self._out = time.perf_counter(), 0.0
        self._readings = collections.deque([(step, 0.0)])  # (step, seconds of work until then)

    def read(self, step: int, now: float) -> dict[str, float]:
        work = now - self._start - self._out
        while len(self._readings) > 1 and work - self._readings[1][1] >= _LEAST:
            self._readings.popleft()
        first, before = self._readings[0]
        self._readings.append((step, work))
        return {"images_per_second": (step - first) * self._batch_size / max(work - before, 1e-9)}

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._out += time.perf_counter() - start
