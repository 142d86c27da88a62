"""--job=benchmark: an experiment's step, its input, and both as the training loop joins them.

Everything is the run's own: the step of its last phase, compiled, its batches, and `loop.fit`. What
is timed takes turns, round by round, so that a machine that slows down slows all of it. In each
round the first three calls are left out, in which the queues between host and device fill.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from cnnjax import allocator
from cnnjax.analysis import summarize, text
from cnnjax.jobs import ahead, backend, console, course, overview, record, workdir
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.evaluation import Inputs
from cnnjax.jobs.experiment import Experiment
from cnnjax.jobs.new_state import begin_phase, new_state
from cnnjax.jobs.phases import Phase
from cnnjax.jobs.resume import saved_preprocess
from cnnjax.train import loop
from cnnjax.types import UserError

PyTree = Any
RESULT = "benchmark.json"
WARM_UP = 3  # Calls.
MOST_CALLS = 1000  # Beyond those.
# What is timed, in the order of a round. "put" is only there if something is put on the device.
SIDES = {"step": "step, on a batch that lies ready", "host": "input, on the host alone",
         "put": "input, from the host to the device", "input": "input, both",
         "loop": "the training loop: input and step"}


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Times the experiment; writes benchmark.json and no other file, whatever the folder holds.

    Raises:
      UserError: if the loss is not finite, so that there is nothing to time.
    """
    backend.warn_of_products(config.precision)
    experiment = experiment_lib.build(config, saved_preprocess(config, folder))
    if dry_run:
        print(f"Would time the step of {config.model.name} at batch {config.train.batch_size}, its "
              f"input and both together, in {config.benchmark.rounds} rounds.")
        return 0
    workdir.check_writable(folder)
    try:
        values = measure(experiment)
    except loop.NonFiniteLossError as error:
        raise UserError(f"In the training loop {error}: there is nothing to time. Lower "
                        "--config.schedule.lr.") from None
    workdir.write_json(folder / RESULT, values)
    console.print_table("Benchmark", rows(values) | {"more": folder / RESULT})
    return 0


def measure(experiment: Experiment) -> dict[str, Any]:
    """Returns what benchmark.json holds."""
    config, phase = experiment.config, experiment.phases[-1]
    inputs, k = overview.last_inputs(experiment), course.steps_per_call(config)
    state = new_state(experiment)
    for later in experiment.phases[1:]:
        state = begin_phase(experiment, later, state)
    host_batch = next(inputs.feed.host_batches(phase.start, phase.start + k, k))
    call, compilation = _compile(experiment, phase, inputs, state, inputs.feed.put(host_batch))
    timed = _sides(experiment, inputs, call, state, host_batch)
    seconds = _take_turns(timed, config.benchmark.rounds, config.benchmark.seconds)
    batch_size = config.train.batch_size
    times = {name: {
        "ms": 1e3 * statistics.median(found), "ms_least": 1e3 * min(found),
        "ms_most": 1e3 * max(found), "images_per_second": batch_size / statistics.median(found)}
        for name, found in seconds.items()}
    return {**_about(experiment, phase), "steps_per_call": k, "compilation": compilation,
            "times": times, **_verdict(seconds),
            **_work(experiment, phase, call, k, times["step"]["ms"])}


def _compile(experiment: Experiment, phase: Phase, inputs: Inputs, state: PyTree, batch: PyTree
             ) -> tuple[jax.stages.Compiled, dict[str, float]]:
    """Returns the compiled step, and the seconds that tracing and compiling it took."""
    jitted = ahead.jitted_call(experiment, phase, inputs.fetch)
    with backend.without_compilation_cache():
        start = time.perf_counter()
        lowered = jitted.lower(state, inputs.constants, batch)
        traced = time.perf_counter()
        compiled = lowered.compile()
        end = time.perf_counter()
    return compiled, {"trace_seconds": traced - start, "compile_seconds": end - traced}


# (calls) -> (seconds of a step, without the first calls; seconds of all of it).
Side = Callable[[int], tuple[float, float]]


def _sides(experiment: Experiment, inputs: Inputs, call: Callable, state: PyTree,
           host_batch: PyTree) -> dict[str, Side]:
    """Returns what is to be timed: functions of the number of calls."""
    k, first = course.steps_per_call(experiment.config), experiment.phases[-1].start
    feed, batch = inputs.feed, inputs.feed.put(host_batch)
    never = loop.Every((), sys.maxsize)
    quiet = loop.Schedule(never, never, never, stop=sys.maxsize)
    logging = loop.Schedule(loop.Every(experiment.schedule.log.intervals, sys.maxsize), never,
                            never, stop=sys.maxsize)

    def fit(batches, schedule):
        # The step gives its state away. Each round begins with the same.
        return _fit(call, jax.tree.map(jnp.copy, state), inputs.constants, batches, schedule,
                    experiment.config.train.batch_size)

    def side(seconds: Callable[[int], float]) -> Side:
        def timed(calls):
            start = time.perf_counter()
            return seconds(calls) / (calls - WARM_UP) / k, time.perf_counter() - start
        return timed

    def until(calls):
        return first, first + calls * k, k

    found = {
        "step": side(lambda n: fit(itertools.repeat((k, batch), n), quiet)),
        "host": side(lambda n: _draw(feed.host_batches(*until(n)))),
        "put": side(lambda n: _draw(feed.put(host_batch) for _ in range(n))),
        "input": side(lambda n: _draw(b for _, b in feed.batches(*until(n)))),
        "loop": side(lambda n: fit(feed.batches(*until(n)), logging))}
    if batch is host_batch:  # It goes along with the call, as it is.
        del found["put"], found["input"]
    return found


def _fit(call: Callable, state: PyTree, constants: PyTree, batches: Iterable,
         schedule: loop.Schedule, batch_size: int) -> float:
    """Runs the training loop; returns the seconds between the ends of the first calls and of all.

    They are those of the device: how far the host runs ahead of it is the loop's own affair.
    """
    numbers = itertools.count(1)
    clock = concurrent.futures.ThreadPoolExecutor(1)
    begin: list[concurrent.futures.Future] = []

    def nothing(*_):
        raise AssertionError("The schedule never asks for this.")

    def counted(*arguments):
        state, losses = call(*arguments)
        if next(numbers) == WARM_UP:
            begin.append(clock.submit(_when_ready, losses))
        return state, losses

    hooks = loop.Hooks(on_step=lambda step: None, on_record=lambda step, values: None,
                       evaluate=nothing, save=nothing, should_stop=lambda: False)
    with clock:
        end = _when_ready(loop.fit(counted, state, constants, batches, schedule, hooks,
                                   start_step=0, batch_size=batch_size))
    return end - begin[0].result()


def _draw(batches: Iterator) -> float:
    """Returns the seconds from when the first batches were there until all were, on the device if
    that is where they go.
    """
    stamps = [_when_ready(batch) for batch in batches]
    return stamps[-1] - stamps[WARM_UP - 1]


def _when_ready(arrays: PyTree) -> float:
    jax.block_until_ready(arrays)
    return time.perf_counter()


def _take_turns(sides: dict[str, Side], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Returns the seconds of a step of each side in each round."""
    calls = {}
    for name, side in sides.items():  # Not counted: it says how many calls fill the seconds.
        _, whole = side(WARM_UP + 1)
        # The start counts as calls, so that a short one is not taken for many.
        each = max(whole / (WARM_UP + 1), 1e-9)
        # A thread that wakes up late makes an interval too long and the next one too short: of
        # short calls there must be some.
        least = 5 if each < 1 else 2
        calls[name] = WARM_UP + min(MOST_CALLS, max(least, math.floor(seconds / each)))
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side(calls[name])[0])
    return found


def _verdict(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Returns which of step and input holds up the other, and what the loop costs beyond it."""
    feeds = seconds.get("input", seconds["host"])
    step, feed = statistics.median(seconds["step"]), statistics.median(feeds)
    slower = max(step, feed)
    # Of the same round, because a machine may be slower in one round than in another.
    over = statistics.median(both / max(sides) for both, *sides in zip(
        seconds["loop"], seconds["step"], feeds, strict=True))
    return {"bottleneck": "step" if step >= feed else "input",
            "faster_over_slower": min(step, feed) / slower, "loop_over_slower": over,
            "loop_beyond_slower_ms": 1e3 * (over - 1) * slower}


def _work(experiment: Experiment, phase: Phase, call: jax.stages.Compiled, k: int,
          step_ms: float) -> dict[str, Any]:
    """Returns operations and bytes of a step, as the model defines them and as XLA counts them."""
    shape = (1, *phase.image_size, experiment.preprocess.channels)
    macs = summarize(experiment.module, shape, fields=False).macs
    # Two operations a multiply-add; the gradients of a layer's input and of its weights take as
    # many again each. What is frozen saves some of that, and a teacher takes more.
    whole = phase.task.trainable is None and phase.task.distillation is None
    flops = 2 * 3 * macs * experiment.config.train.batch_size if whole else None
    cost, memory = call.cost_analysis() or {}, call.memory_analysis()
    # Several steps are unrolled on a CPU; elsewhere they are a loop, whose body counts once.
    steps = k if jax.default_backend() == "cpu" else 1
    found = {"multiply_adds_per_image": macs, "model_flops_per_step": flops,
             "achieved_flops_per_second": flops and 1e3 * flops / step_ms,
             "xla_per_device": {
                 "flops_per_step": cost["flops"] / steps if "flops" in cost else None,
                 "bytes_accessed_per_step": cost["bytes accessed"] / steps
                 if "bytes accessed" in cost else None,
                 **{f"{name}_bytes": getattr(memory, f"{name}_size_in_bytes", None)
                    for name in ("argument", "output", "alias", "temp")}}}
    stats = experiment.mesh.devices.flat[0].memory_stats() or {}
    return found | {"device_peak_bytes": stats.get("peak_bytes_in_use")}


def _about(experiment: Experiment, phase: Phase) -> dict[str, Any]:
    """Returns what was measured, and where."""
    described = record.describe(experiment)
    return {**{key: described[key] for key in ("config", "model", "data", "git_commit",
                                               "versions")},
            "image_size": phase.image_size, "batch_size": experiment.config.train.batch_size,
            "devices": backend.describe_devices(list(experiment.mesh.devices.flat)),
            "cpu_cores": os.cpu_count(), "precision": experiment.precision,
            "ops": experiment.config.ops, "xla_flags": os.environ.get("XLA_FLAGS", ""),
            "allocator": os.environ.get(allocator.VARIABLE, "")}


def rows(values: dict[str, Any]) -> dict[str, str]:
    """Returns the table of what `measure` returned."""
    times, xla, count = values["times"], values["xla_per_device"], text.size
    height, width = values["image_size"]
    beyond, share = values["loop_beyond_slower_ms"], values["loop_over_slower"] - 1
    compilation = values["compilation"]

    def known(value, unit):
        return "unknown" if value is None else count(value, unit)

    return {
        "model": f"{values['model']['name']}, {height}x{width} px, batch {values['batch_size']:,}, "
                 f"{values['precision']}, ops={values['ops']}",
        "data": values["data"]["name"],
        "devices": f"{values['devices']}, {values['cpu_cores']} CPU cores",
        "versions": ", ".join(f"{name} {values['versions'][name]}" for name in (
            "jax", "jaxlib", "flax") if name in values["versions"]),
        "compilation": f"{compilation['trace_seconds']:.1f} s of tracing, "
                       f"{compilation['compile_seconds']:.1f} s of XLA, without a cache",
        **{title: _time(times[name]) for name, title in SIDES.items() if name in times},
        "bottleneck": f"the {values['bottleneck']}: the other takes "
                      f"{values['faster_over_slower']:.1%} of its time",
        "loop": f"{beyond:+.3g} ms a step ({share:+.1%}) over the slower of the two",
        "operations": "not counted: a part is frozen, or there is a teacher"
        if values["model_flops_per_step"] is None else
        f"{count(values['model_flops_per_step'], 'FLOP')} a step (multiply-adds x 2 x 3), "
        f"{count(values['achieved_flops_per_second'], 'FLOP/s')}",
        "XLA's count": f"{known(xla['flops_per_step'], 'FLOP')} and "
                       f"{known(xla['bytes_accessed_per_step'], 'B')} of memory traffic a step "
                       "and device, what loops repeat counted once",
        "memory": f"{known(xla['argument_bytes'], 'B')} of arguments, "
                  f"{known(xla['temp_bytes'], 'B')} of temporaries at most, a device"
        + (f"; {count(values['device_peak_bytes'])} at the peak of the benchmark, which has the "
             "state twice"
           if values["device_peak_bytes"] else ""),
    }


def _time(found: dict[str, float]) -> str:
    return (f"{found['ms']:.4g} ms a step ({found['ms_least']:.4g} to {found['ms_most']:.4g}), "
            f"{found['images_per_second']:,.0f} images/s")
