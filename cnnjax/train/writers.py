"""Where measurements go: metrics.jsonl, and TensorBoard events without TensorFlow."""

from __future__ import annotations

import contextlib
import json
import os
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
    """TensorBoard's event file, written at once: a thread that died of a full disk would block."""

    def __init__(self, folder: Path, first_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._event = Event
        # A name of its own: a run that is rolled back may open a second file in the same second.
        self._file = EventsWriter(str(folder / "events"), f".{os.getpid()}.{time.time_ns()}")
        # From this step on, earlier files of the run are no longer shown.
        self._file.write_event(Event(step=first_step, wall_time=time.time(),
                                     session_log=SessionLog(status=SessionLog.START)))
        self._file.flush()

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Writes each value as a scalar; train_loss and eval_loss become train/loss, eval/loss."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            tag = name.replace("_", "/", 1) if name.startswith(("train_", "eval_")) else name
            self._file.write_event(self._event(step=step, wall_time=time.time(),
                                               summary=scalar(tag, value)))
        self._file.flush()

    def close(self) -> None:
        self._file.close()
