"""Where measurements go: metrics.jsonl, and TensorBoard events without TensorFlow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
# Everything else in metrics.jsonl is a function of the config, and equal in a resumed run.
TIMING_FIELDS = ("seconds", "images_per_second")


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl, without a last one that a crash cut short."""
    path = Path(workdir) / METRICS
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class MetricsWriter:
    """Appends one JSON object a step to metrics.jsonl and the same scalars to TensorBoard.

    Args:
      workdir: exists.
      restored_step: lines and events after this step are dropped, because the run is about to
        write them again; 0 starts anew.
      tensorboard: whether to write events, to the folder `tensorboard`.
    """

    def __init__(self, workdir: str | Path, restored_step: int, tensorboard: bool = True):
        path = Path(workdir) / METRICS
        kept = [r for r in read_metrics(workdir) if r["step"] <= restored_step]
        # Written beside and renamed: a crash here must not lose the lines before it.
        beside = path.with_suffix(".jsonl.new")
        beside.write_text("".join(json.dumps(r) + "\n" for r in kept))
        os.replace(beside, path)
        self._file = path.open("a")
        self._events = None
        if tensorboard:
            import tensorboardX

            self._events = tensorboardX.SummaryWriter(
                str(Path(workdir) / "tensorboard"),
                purge_step=restored_step + 1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Writes {"step": step, **values} and returns when the operating system has it."""
        self._file.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")
        self._file.flush()
        if self._events:
            for name, value in values.items():
                # train_loss and eval_loss become train/loss and eval/loss: a group each.
                self._events.add_scalar(name.replace("_", "/", 1)
                                        if name.startswith(("train_", "eval_")) else name,
                                        value, step)

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        if self._events:
            self._events.close()
