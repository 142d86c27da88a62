"""metrics.jsonl and the event files."""

import json

import pytest

from cnnjax.train.writers import MetricsWriter, read_metrics


def write(folder, restored, steps, tensorboard=False):
    writer = MetricsWriter(folder, restored, tensorboard)
    for step in steps:
        writer.write(step, {"train_loss": step / 10})
    writer.close()


def test_on_resume_lines_after_the_restored_step_are_dropped(tmp_path):
    write(tmp_path, 0, [1, 2, 3, 4])
    write(tmp_path, 2, [3, 5])
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2, 3, 5]


def test_a_run_from_scratch_starts_a_new_file(tmp_path):
    write(tmp_path, 0, [1, 2])
    write(tmp_path, 0, [7])
    assert [r["step"] for r in read_metrics(tmp_path)] == [7]


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path):
    write(tmp_path, 0, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "tra')
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2]
    write(tmp_path, 2, [3])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


@pytest.mark.parametrize("spoilt", [b"garbage", b"\xff\xfe\x00", b"5", b"{}", b'{"step": "x"}'])
def test_a_spoilt_line_costs_no_other(tmp_path, spoilt):
    write(tmp_path, 0, [1, 2, 3])
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], spoilt, lines[2]]) + b"\n")
    write(tmp_path, 3, [4])
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 3, 4]


def test_events_are_written_without_tensorflow(tmp_path):
    write(tmp_path, 0, [1, 2], tensorboard=True)
    events = list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1 and b"train/loss" in events[0].read_bytes()


def test_on_resume_the_events_of_the_restored_step_stay_and_later_ones_are_no_longer_shown(
        tmp_path):
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    write(tmp_path, 2, [3], tensorboard=True)
    [file] = (tmp_path / "tensorboard").iterdir()
    events, data = [], file.read_bytes()
    while data:  # Length, its checksum, the event, and its checksum.
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12:12 + length]))
        data = data[16 + length:]
    [start] = (e for e in events if e.session_log.status == SessionLog.START)
    assert start.step == 3  # TensorBoard drops what is not before it.
