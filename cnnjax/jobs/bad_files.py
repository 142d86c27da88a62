"""The examples that a run goes on without, because they cannot be read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from cnnjax.checkpoint import warn
from cnnjax.data import Split
from cnnjax.jobs import hosts

FOLDER = "bad_files"
# Names in summary.json; the files of the folder have all of them.
_NAMED = 100


class BadFiles:
    """Bad examples, each warned of once and, in training, kept in the workdir.

    Each process appends to a file of its own as it meets them. So a run that goes on, be it after
    it was killed or on another number of hosts, neither forgets nor warns again.
    With `quiet` nothing is warned of.
    """

    def __init__(self, quiet: bool = False):
        self._quiet = quiet
        self._found: dict[tuple[str, int], dict[str, Any]] = {}
        self._folder: Path | None = None
        self._warned = False  # That the folder cannot be written.
        self._lock = threading.Lock()  # Threads that decode report at the same time.

    def __len__(self) -> int:
        return len(self._found)

    def report_of(self, split: Split) -> Callable[[int, str, str], None]:
        """Returns what a feed of the split calls with (index, name, reason)."""
        def report(index: int, name: str, reason: str) -> None:
            entry = {"split": split.name, "index": index, "name": name, "reason": reason}
            with self._lock:
                if (split.name, index) in self._found:
                    return
                self._found[split.name, index] = entry
                if not self._quiet:
                    warn(f"{name} {reason}. It is left out (data.on_error=skip).")
                self._write(entry)

        return report

    def keep_in(self, workdir: Path, resumed: bool) -> None:
        """Takes what earlier sessions of a run have met, and adds to it from now on."""
        self._folder = workdir / FOLDER
        if resumed:
            self._read()
        elif hosts.is_first():
            for file in self._files():
                file.unlink()
        hosts.meet("bad files")

    def summary(self) -> dict[str, Any]:
        """Returns {"count": …, "files": the first names}, of all processes; all must call it."""
        self._gather()
        entries = [self._found[key] for key in sorted(self._found)]
        return {"count": len(entries), "files": [e["name"] for e in entries[:_NAMED]]}

    def _gather(self) -> None:
        """Takes what the other processes have met. Through memory: not every job keeps files."""
        for entries in hosts.gather(list(self._found.values())):
            self._add(entries)

    def _add(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            self._found.setdefault((entry["split"], entry["index"]), entry)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl")) if self._folder else []

    def _read(self) -> None:
        for file in self._files():
            for line in file.read_text(errors="replace").splitlines():
                try:
                    self._add([json.loads(line)])
                except (ValueError, KeyError):  # Cut off by a kill: it will be met again.
                    continue

    def _write(self, entry: dict[str, Any]) -> None:
        if self._folder is None:
            return
        try:
            self._folder.mkdir(exist_ok=True)
            with open(self._folder / f"{jax.process_index()}.jsonl", "a") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:  # Not worth a run, nor a warning for each.
            if not self._warned:
                warn(f"{self._folder} cannot be written: {error.strerror}.")
            self._warned = True
