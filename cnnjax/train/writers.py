"""Where measurements go: metrics.jsonl, and TensorBoard events without TensorFlow."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cnnjax.files import write_whole

METRICS = "metrics.jsonl"
# Everything else in metrics.jsonl is a function of the config, and equal in a resumed run.
TIMING_FIELDS = ("seconds", "images_per_second")


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl, without one that a crash cut short or a disk spoilt."""
    path = Path(workdir) / METRICS
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    records = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
    return records


class MetricsWriter:
    """Appends one JSON object a step to metrics.jsonl and the same scalars to TensorBoard.

    A full disk costs lines, not the run: what cannot be written is told of once and waits in memory
    for the next line; of the events it is lost.

    Args:
      workdir: exists.
      restored_step: lines and events after this step are dropped, because the run is about to
        write them again; 0 starts anew.
      tensorboard: whether to write events, to the folder `tensorboard`.
      tell: gets a sentence about what could not be written.

    Raises:
      OSError: if the lines up to the restored step cannot be written.
    """

    def __init__(self, workdir: str | Path, restored_step: int, tensorboard: bool = True,
                 tell: Callable[[str], None] = warnings.warn):
        path = Path(workdir) / METRICS
        kept = [r for r in read_metrics(workdir) if r["step"] <= restored_step]
        # Written beside and renamed: a crash here must not lose the lines before it.
        write_whole(path, "".join(json.dumps(r) + "\n" for r in kept))
        # Without a buffer, so that what was not written is known.
        self._file, self._waiting = path.open("ab", buffering=0), b""
        self._tell, self._told, self._events = tell, set(), None
        if tensorboard:
            with self._lenient("TensorBoard events"):
                self._events = _Events(Path(workdir) / "tensorboard", restored_step + 1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Writes {"step": step, **values} and returns when the operating system has it."""
        self._waiting += (json.dumps({"step": step, **values}, allow_nan=False) + "\n").encode()
        self._flush()
        if self._events:
            with self._lenient("TensorBoard events"):
                self._events.write(step, values)

    def close(self) -> None:
        """Tries once more what could not be written, and closes both."""
        self._flush()
        self._file.close()
        if self._events:
            with self._lenient("TensorBoard events"):
                self._events.close()

    def _flush(self) -> None:
        with self._lenient(METRICS):
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting):]

    @contextlib.contextmanager
    def _lenient(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if what not in self._told:
                self._told.add(what)
                self._tell(f"{what} cannot be written: {error.strerror}. The run goes on.")


class _Events:
    """TensorBoard's event file: TFRecords of protocol buffers, the messages being tensorboardX's.

    Written at once, and here: its writer waits at every line until the disk has it, which took two
    of a hundred seconds of LeNet-5's training, and of a full disk it leaves half a record, after
    which nothing can be read. The operating system has what was written, so a killed run loses
    nothing.
    """

    def __init__(self, folder: Path, first_step: int):
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names. So this one's is the last, though a
        # run that is rolled back open it in the same second, or a clock have been set back.
        seconds = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
        second = max([int(time.time()), *(int(s) + 1 for s in seconds if s.isdecimal())])
        name = f"events.out.tfevents.{second}.{socket.gethostname()}.{os.getpid()}"
        self._file, self._size = (folder / name).open("ab", buffering=0), 0
        self._put(file_version="brain.Event:2")
        # From this step on, earlier files of the run are no longer shown.
        self._put(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Writes each value as a scalar; train_loss and eval_loss become train/loss, eval/loss."""
        from tensorboardX.proto.summary_pb2 import Summary

        self._put(step=step, summary=Summary(value=[
            Summary.Value(tag=name.replace("_", "/", 1) if name.startswith(("train_", "eval_"))
                          else name, simple_value=value) for name, value in values.items()]))

    def _put(self, **fields: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        data = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        record = b"".join(part + struct.pack("<I", masked_crc32c(part)) for part in (length, data))
        if (written := self._file.write(record)) < len(record):
            self._file.truncate(self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written

    def close(self) -> None:
        self._file.close()
