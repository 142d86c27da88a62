"""Stands in for launch.py in tests of sweeps: it trains nothing, and leaves what training does.

begun.txt and ended.txt in its folder get a line for every time that it began and came to its end.
FAKE_SECONDS is how long it takes; the trial whose folder's path holds FAKE_FAILS fails.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

flags = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
folder = Path(flags["workdir"])
folder.mkdir(parents=True, exist_ok=True)


def note(name):
    with (folder / name).open("a") as file:
        file.write(f"{time.time()}\n")


signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
note("begun.txt")
time.sleep(float(os.environ.get("FAKE_SECONDS", 0)))
if os.environ.get("FAKE_FAILS", "\0") in str(folder):
    sys.exit("the disk is full")
# It is at its end. A run that is finished stays so, whatever it is told while it exits.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
lr, total = float(flags.get("config.schedule.lr", 0)), 90
steps = int(flags.get("config.train.stop_after_steps", total))
with (folder / "metrics.jsonl").open("a") as file:
    file.write(json.dumps({"step": steps, "eval_top1": lr}) + "\n")
(folder / "summary.json").write_text(json.dumps({
    "status": "done" if steps == total else "stopped", "model": "fake", "data": "digits",
    "params": 10, "multiply_adds": 20, "steps": steps,
    "top1": lr + int(flags["config.seed"]) / 100, "seconds": 0.0}))
print(f"step {steps}/{total}  epoch 1.0")
note("ended.txt")
