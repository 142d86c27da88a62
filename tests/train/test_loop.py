"""When things happen, and what the loop does about trouble."""

import gc
import time

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.train import loop
from cnnjax.train.state import NO_STEP, TrainState, empty_window


def every(interval, total=10):
    return loop.Every(() if interval is None else (interval,), total)


@pytest.mark.parametrize(("interval", "per_call", "expected"), [
    (3, 1, [3, 6, 9, 10]), (2.5, 1, [3, 5, 8, 10]), (None, 1, [10]), (1, 1, list(range(1, 11))),
    (3, 4, [4, 8, 10]), (100, 1, [10]), (10 / 3, 1, [4, 7, 10])])
def test_events_fall_on_the_first_call_at_or_after_each_multiple_and_on_the_last(
        interval, per_call, expected):
    steps = [*range(per_call, 10, per_call), 10]
    before = [0, *steps]
    due = [b for a, b in zip(before, steps, strict=False) if every(interval).due(a, b)]
    assert due == expected


class Recorder:
    """Hooks that write down what the loop did."""

    def __init__(self, stop_at=None):
        self.events, self.stop_at, self.now = [], stop_at, 0

    def hooks(self):
        return loop.Hooks(
            on_step=lambda step: setattr(self, "now", step),
            on_record=lambda step, values: self.events.append(("record", step, sorted(values))),
            evaluate=lambda state, should_stop: {"eval_top1": 0.5},
            save=lambda step, state, values: self.events.append(("save", step)),
            should_stop=lambda: self.now == self.stop_at)


def counting_call(state, constants, batch):
    window = {**state.window, "loss": state.window["loss"] + 4.0,
              "count": state.window["count"] + 4,
              "bad_step": jnp.where(batch["x"] > 90, state.step + 1, state.window["bad_step"])}
    return state.replace(step=state.step + 1, window=window), jnp.ones(1)


def run(recorder, steps=6, start=0, xs=None, log=3, evaluate=None, save=None, stop=6):
    state = TrainState(step=jnp.int32(start), params={"w": jnp.zeros(2)}, batch_stats={},
                       opt_state=(), window=empty_window())
    xs = np.zeros(steps) if xs is None else xs
    schedule = loop.Schedule(log=every(log, steps), evaluate=every(evaluate, steps),
                             save=every(save, steps), stop=stop)
    return loop.fit(counting_call, state, {}, ((1, {"x": x}) for x in xs[start:stop]), schedule,
                    recorder.hooks(), start_step=start, batch_size=4)


def test_each_step_is_recorded_once_with_everything_measured_there():
    recorder = Recorder()
    state = run(recorder, evaluate=3)
    both = ["eval_top1", "images_per_second", "train_loss", "train_top1"]
    assert recorder.events == [("record", 3, both), ("record", 6, both), ("save", 6)]
    assert int(state.window["count"]) == 0 and int(state.window["bad_step"]) == NO_STEP


def test_the_line_is_written_before_the_checkpoint():
    recorder = Recorder()
    run(recorder, log=2, save=2)
    assert [e[:2] for e in recorder.events] == [
        (kind, step) for step in (2, 4, 6) for kind in ("record", "save")]


def test_a_log_alone_waits_for_no_step_and_comes_in_order():
    """The first is waited for when the third call has been made."""
    recorder = Recorder()
    hooks = recorder.hooks()
    hooks.on_step = lambda step: recorder.events.append(("step", step))
    hooks.evaluate, hooks.should_stop = lambda *_: {}, lambda: False
    state = TrainState(step=jnp.int32(0), params={"w": jnp.zeros(2)}, batch_stats={},
                       opt_state=(), window=empty_window())
    loop.fit(counting_call, state, {}, ((1, {"x": 0.0}) for _ in range(6)),
             loop.Schedule(log=every(1, 6), evaluate=every(None, 6), save=every(4, 6), stop=6),
             hooks, start_step=0, batch_size=4)
    seen = [event[:2] for event in recorder.events]
    steps, records = ([n for kind, n in seen if kind == what] for what in ("step", "record"))
    assert steps == records == [1, 2, 3, 4, 5, 6]
    assert seen.index(("record", 1)) > seen.index(("step", 2))
    # Before a checkpoint every line up to it is written.
    assert seen.index(("record", 4)) + 1 == seen.index(("save", 4)) < seen.index(("step", 5))


def test_steps_before_an_error_of_the_input_have_their_lines():
    def batches():
        yield from ((1, {"x": 0.0}) for _ in range(3))
        raise OSError("a damaged image")

    recorder = Recorder()
    state = TrainState(step=jnp.int32(0), params={"w": jnp.zeros(2)}, batch_stats={},
                       opt_state=(), window=empty_window())
    with pytest.raises(OSError, match="a damaged image"):
        loop.fit(counting_call, state, {}, batches(),
                 loop.Schedule(log=every(1, 6), evaluate=every(None, 6), save=every(None, 6),
                               stop=6), recorder.hooks(), start_step=0, batch_size=4)
    assert [event[:2] for event in recorder.events] == [("record", step) for step in (1, 2, 3)]


@pytest.mark.parametrize(("seconds", "most"), [(0.02, 3), (0.002, 9)])
def test_the_host_runs_further_ahead_of_short_calls(seconds, most, monkeypatch):
    now, done = [0.0], []
    monkeypatch.setattr(loop.jax, "block_until_ready",
                        lambda call: (done.append(call), now.__setitem__(0, now[0] + seconds)))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    in_flight, ahead = loop._InFlight(), []
    for call in range(40):
        in_flight.add(call)
        ahead.append(call + 1 - len(done))
        in_flight.keep_short()
    assert ahead[:4] == [1, 2, 3, 3] and max(ahead) == most
    assert done == list(range(len(done)))
    in_flight.wait_for_all_but(0)
    assert done == list(range(40))


@pytest.mark.parametrize(("seconds", "most"), [(0.02, 3), (0.002, 9)])
def test_an_evaluation_runs_as_far_ahead_of_the_device_as_training(seconds, most, monkeypatch):
    now, begun, done = [0.0], [], []
    monkeypatch.setattr(loop.jax, "block_until_ready",
                        lambda count: (done.append(count), now.__setitem__(0, now[0] + seconds)))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])

    def call(variables, constants, batch, sums):
        begun.append(batch)
        assert len(begun) - len(done) <= most
        return {name: value + 1 for name, value in sums.items()}

    sums = dict.fromkeys(("loss", "top1", "top5", "count"), np.int32(0))
    assert loop.evaluate(call, {}, {}, range(40), sums) == {
        "loss": 1.0, "top1": 1.0, "top5": 1.0, "examples": 40}
    assert done == list(range(1, len(done) + 1)) and len(begun) - len(done) < most


def test_the_host_runs_no_further_ahead_where_the_input_is_slow(monkeypatch):
    """Or lines, and the error of a loss that is not finite, would come many batches late."""
    now, done = [0.0], []
    monkeypatch.setattr(loop.jax, "block_until_ready", done.append)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    in_flight = loop._InFlight()
    for call in range(20):
        now[0] += 1.0  # For the batch; the device has long made it.
        in_flight.add(call)
        in_flight.keep_short()
        assert call + 1 - len(done) <= 2


def test_the_rate_of_a_line_counts_no_wait_for_the_input_of_later_steps():
    rates, hooks = {}, Recorder().hooks()
    hooks.on_record = lambda step, values: rates.update({step: values["images_per_second"]})
    state = TrainState(step=jnp.int32(0), params={"w": jnp.zeros(2)}, batch_stats={},
                       opt_state=(), window=empty_window())
    counting_call(state, {}, {"x": 0.0})  # Compiles its operations.

    def batches():
        for step in range(6):
            time.sleep(1.0 if step == 2 else 0.0)
            yield 1, {"x": 0.0}

    loop.fit(counting_call, state, {}, batches(),
             loop.Schedule(log=every(2, 6), evaluate=every(None, 6), save=every(None, 6), stop=6),
             hooks, start_step=0, batch_size=4)
    assert rates[4] <= 8 < rates[2]


def test_the_rate_of_short_steps_is_one_over_several_lines():
    meter = loop._Meter(step=0, batch_size=10)
    # Of every second step it is heard only with the next one: 1,000 images a second, in truth.
    heard = [meter._start + t for t in (0.02, 0.020001, 0.04, 0.040001, 0.12, 0.120001, 0.42, 1.42)]
    steps = [1, 2, 3, 4, 11, 12, 42, 142]
    rates = [meter.read(step, t)["images_per_second"] for step, t in zip(steps, heard, strict=True)]
    assert max(rates) < 1.3e3 and min(rates) >= 500
    assert rates[-1] == pytest.approx(1e3)


def test_the_rate_of_a_line_counts_no_check_of_what_is_saved(monkeypatch):
    rates, hooks = {}, Recorder().hooks()
    hooks.on_record = lambda step, values: rates.update({step: values.get("images_per_second")})
    # The first one compiles.
    monkeypatch.setattr(loop, "_check_finite", lambda _, step: time.sleep(2.0 * (step == 2)))
    state = TrainState(step=jnp.int32(0), params={"w": jnp.zeros(2)}, batch_stats={},
                       opt_state=(), window=empty_window())
    counting_call(state, {}, {"x": 0.0})  # Compiles its operations.
    loop.fit(counting_call, state, {}, ((1, {"x": 0.0}) for _ in range(6)),
             loop.Schedule(log=every(4, 6), evaluate=every(None, 6), save=every(2, 6), stop=6),
             hooks, start_step=0, batch_size=4)
    assert rates[4] > 8


def test_a_request_to_stop_saves_first_and_leaves_the_window_in_the_state():
    recorder = Recorder(stop_at=4)
    with pytest.raises(loop.Preempted) as stop:
        run(recorder)
    assert stop.value.step == 4 and recorder.events[-1] == ("save", 4)


def test_a_request_to_stop_at_the_last_step_is_a_finished_run():
    recorder = Recorder(stop_at=6)
    assert int(run(recorder).step) == 6


def test_a_bad_loss_stops_at_the_next_log_names_its_step_and_is_not_saved():
    recorder = Recorder()
    with pytest.raises(loop.NonFiniteLossError) as error:
        run(recorder, xs=np.array([0, 0, 0, 0, 99, 0.0]))
    assert error.value.step == 5
    assert [e[:2] for e in recorder.events] == [("record", 3)]


def test_a_bad_parameter_is_not_saved_though_the_loss_was_finite():
    good = TrainState(step=jnp.int32(1), params={"w": jnp.zeros(1)}, batch_stats={},
                      opt_state=(jnp.int32(1),), window=empty_window())
    loop._check_finite(good, 1)
    bad = {"w": jnp.array([jnp.nan])}
    for state in (good.replace(params=bad), good.replace(batch_stats=bad),
                  good.replace(opt_state=bad)):
        with pytest.raises(loop.NonFiniteLossError, match="state"):
            loop._check_finite(state, 1)


def test_a_run_that_stops_early_evaluates_and_saves_there_and_keeps_its_window():
    recorder = Recorder()
    state = run(recorder, stop=4)
    assert recorder.events[1:] == [("record", 4, ["eval_top1"]), ("save", 4)]
    assert int(state.window["count"]) == 4


def test_an_evaluation_that_is_not_finite_is_not_saved():
    recorder = Recorder()
    hooks = recorder.hooks()
    hooks.evaluate = lambda state, should_stop: {"eval_loss": float("nan")}
    recorder.hooks = lambda: hooks
    with pytest.raises(loop.NonFiniteLossError, match="evaluation"):
        run(recorder)
    assert not [e for e in recorder.events if e[0] == "save"]


def test_steps_and_records_leave_nothing_for_the_garbage_collector():
    """Which `launch.py` has look rarely: what it alone could free would stay, with its arrays."""
    run(Recorder(), log=2)  # What is made once.
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        left = []
        for _ in range(3):  # Threads that other tests have left behind make garbage of their own.
            run(Recorder(), log=2)
            left.append(gc.collect())
        assert min(left) == 0
    finally:
        if enabled:
            gc.enable()


def test_a_multiple_that_is_a_whole_number_of_steps_is_due_there_and_not_a_step_later():
    # 1.1 epochs of 100 examples in batches of 30, 3.67 steps: thrice that are 11, a hair less in
    # floats.
    due = [step for step in range(1, 13) if every(1.1 * 100 / 30, 99).due(step - 1, step)]
    assert due == [4, 8, 11]


def test_a_request_to_stop_saves_no_bad_parameter_either(monkeypatch):
    def diverges(state, constants, batch):
        state, losses = counting(state, constants, batch)
        return state.replace(params={"w": jnp.full(2, jnp.nan)}), losses

    counting = counting_call
    monkeypatch.setitem(globals(), "counting_call", diverges)
    recorder = Recorder(stop_at=4)
    with pytest.raises(loop.NonFiniteLossError, match="state"):
        run(recorder)
    assert not [e for e in recorder.events if e[0] == "save"]


def test_an_interrupted_evaluation_saves_the_window_as_it_was_before_the_log():
    def interrupted(state, should_stop):
        raise loop.EvaluationInterrupted

    recorder, saved = Recorder(), []
    hooks = recorder.hooks()
    hooks.evaluate = interrupted
    hooks.save = lambda step, state, values: saved.append(
        (step, int(state.window["count"]), values))
    recorder.hooks = lambda: hooks
    with pytest.raises(loop.Preempted):
        run(recorder, evaluate=3)
    assert saved == [(3, 12, {"unmeasured_since": 2})] and not recorder.events


def test_the_evaluation_at_the_end_of_a_phase_is_not_interrupted():
    recorder, asked = Recorder(stop_at=4), []
    hooks = recorder.hooks()
    hooks.evaluate = lambda state, should_stop: asked.append(should_stop()) or {}
    for also, expected in (((4,), False), ((), True)):
        schedule = loop.Schedule(log=every(None), save=every(None), stop=10,
                                 evaluate=loop.Every((4,), 10, also))
        state = TrainState(step=jnp.int32(3), params={"w": jnp.zeros(2)}, batch_stats={},
                           opt_state=(), window=empty_window())
        with pytest.raises(loop.Preempted):
            loop.fit(counting_call, state, {}, [(1, {"x": 0.0})], schedule, hooks, start_step=3,
                     batch_size=4)
        assert asked.pop() is expected
