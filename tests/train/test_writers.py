"""metrics.jsonl and the event files."""

import json
import time

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
    from tensorboardX.proto.event_pb2 import SessionLog

    write(tmp_path, 2, [3], tensorboard=True)
    [start] = (e for e in events(tmp_path) if e.session_log.status == SessionLog.START)
    assert start.step == 3  # TensorBoard drops what is not before it.


@pytest.mark.parametrize("back", [0, 3600])
def test_tensorboard_reads_the_sessions_of_a_run_in_their_order_though_a_clock_is_set_back(
        back, tmp_path, monkeypatch):
    """It reads files in the order of their names."""
    write(tmp_path, 0, [1, 2, 3], tensorboard=True)
    first, = (tmp_path / "tensorboard").iterdir()
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() - back)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() - back * 10**9)
    write(tmp_path, 2, [3], tensorboard=True)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert min((tmp_path / "tensorboard").iterdir()) == first


def events(folder):
    """Returns the events of the one file: records of length, checksum, event and checksum."""
    from tensorboardX.proto.event_pb2 import Event

    [file] = (folder / "tensorboard").iterdir()
    found, data = [], file.read_bytes()
    while data:
        length = int.from_bytes(data[:8], "little")
        found.append(Event.FromString(data[12:12 + length]))
        assert len(data) >= 16 + length
        data = data[16 + length:]
    return found


def test_of_a_full_disk_no_half_event_remains(tmp_path):
    said = []
    writer = MetricsWriter(tmp_path, 0, tell=said.append)
    writer.write(1, {"train_loss": 0.5})
    whole, file = writer._events._file, writer._events._file.write

    class Full:
        def __getattr__(self, name):
            return getattr(whole, name)

        def write(self, record):
            return file(record[:20])

    writer._events._file = Full()
    writer.write(2, {"train_loss": 0.25})
    writer._events._file = whole
    writer.write(3, {"train_loss": 0.125, "lr": 0.5})
    writer.close()
    assert said == ["TensorBoard events cannot be written: No space left on device. The run goes "
                    "on."]
    assert [(e.step, [(v.tag, v.simple_value) for v in e.summary.value])
            for e in events(tmp_path)[2:]] == [
        (1, [("train/loss", 0.5)]), (3, [("train/loss", 0.125), ("lr", 0.5)])]


@pytest.mark.slow
def test_tensorflow_reads_the_events(tmp_path):
    tf = pytest.importorskip("tensorflow")
    write(tmp_path, 0, [1, 2], tensorboard=True)
    [file] = (tmp_path / "tensorboard").iterdir()
    found = [tf.compat.v1.Event.FromString(record.numpy())
             for record in tf.data.TFRecordDataset(str(file))]  # It checks the checksums.
    assert [e.file_version for e in found] == ["brain.Event:2", "", "", ""]
    assert [(e.step, [(v.tag, round(v.simple_value, 6)) for v in e.summary.value])
            for e in found[2:]] == [(1, [("train/loss", 0.1)]), (2, [("train/loss", 0.2)])]
