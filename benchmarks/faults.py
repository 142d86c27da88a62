"""What happens to a run when something goes wrong.

    python -m benchmarks.faults               a table: fault, outcome, message
    python -m benchmarks.faults --kills=200   kill -9 at random moments (benchmarks/kills.py)

Each fault is done to a run of its own, a small CNN with batch norm, dropout, mixup, averaged
weights and streamed data; then the same command goes on. "equal" says that the digest of its whole
state at the end is that of a run to which nothing happened. The full disk and the
read-only one are a tmpfs, which takes root; without, they are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import kills
from benchmarks.kills import ROOT, outcome, start

NAME = "simple_cnn"
EXPLODING = ("--config.schedule.lr=1e6", "--config.model.batch_norm=False",
             "--config.schedule.warmup_steps=20", "--config.optimizer.weight_decay=1")


class Bench:
    """Where the runs are, and what an undisturbed one came to."""

    def __init__(self, folder: Path):
        self.folder, self.cache = folder, folder / "cache"
        self.code(start(NAME, folder / "whole", self.cache))
        self.whole = outcome(folder / "whole")["state_sha256"]
        self.part = folder / "part"
        self.code(start(NAME, self.part, self.cache, "--config.train.stop_after_steps=95"))

    def code(self, process: subprocess.Popen) -> int:
        """Waits for a process and returns its exit code."""
        return process.wait(timeout=1200)

    def ends_equal(self, run: Path) -> str:
        """Lets the same command go on, and says whether the end is the undisturbed one's."""
        code = self.code(start(NAME, run, self.cache))
        same = code == 0 and outcome(run)["state_sha256"] == self.whole
        return f"the same command then exits {code}, {'equal' if same else 'NOT EQUAL'}"

    def said(self, run: Path, *words: str) -> str:
        """Returns the last line of a run's output that has one of the words."""
        lines = [line.strip() for line in run.with_suffix(".log").read_text().splitlines()]
        found = [line for line in lines if any(word in line for word in words)]
        return found[-1].replace(str(self.folder), "…").replace("|", "/") if found else "-"

    def copy(self, name: str) -> Path:
        """Returns a run that stopped at step 95, with checkpoints at 90 and 95."""
        run = self.folder / name
        subprocess.run(["cp", "-a", self.part, run], check=True)
        return run


def wait_until(what: Callable[[], bool], process: subprocess.Popen) -> None:
    """Returns when something is so, or the process has ended."""
    while process.poll() is None and not what():
        time.sleep(0.001)


def signals(bench: Bench) -> Iterator[tuple[str, str, str]]:
    """Signals at awkward moments."""
    def log(run):
        return run.with_suffix(".log").read_text()

    def saving(run):
        return any((run / "checkpoints").glob("*.orbax-checkpoint-tmp*"))

    cases = {
        "SIGTERM during the imports": (lambda run: True, bench.cache, ()),
        "SIGTERM during the first compilation": (
            lambda run: "workdir" in log(run), bench.folder / "cold", ()),
        "SIGTERM and SIGUSR1 at once": (lambda run: "\nstep 21" in log(run), bench.cache, ()),
        "SIGTERM during a save": (saving, bench.cache, ()),
        "SIGTERM during an evaluation": (lambda run: "eval loss" in log(run), bench.cache,
                                         ("--config.eval.every_steps=1",)),
        "kill -9 during a save": (saving, bench.cache, ()),
    }
    for number, (name, (moment, cache, more)) in enumerate(cases.items()):
        run = bench.folder / f"signal{number}"
        process = start(NAME, run, cache, *more)
        if number == 0:
            time.sleep(0.5)
        wait_until(lambda run=run, moment=moment: moment(run), process)
        sent = [signal.SIGKILL] if "kill" in name else [signal.SIGTERM]
        for one in sent + [signal.SIGUSR1] * ("at once" in name):
            process.send_signal(one)
        began = time.perf_counter()
        code = bench.code(process)
        seconds = time.perf_counter() - began
        said = bench.said(run, "topped")
        yield name, f"exit {code} after {seconds:.1f} s; {bench.ends_equal(run)}", said
    run = bench.copy("evaluate")
    with run.with_suffix(".log").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "launch.py", "--job=evaluate", f"--workdir={run}"], cwd=ROOT,
            stdout=output, stderr=output, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    time.sleep(1.5)
    process.terminate()
    yield "SIGTERM, --job=evaluate", f"exit {bench.code(process)}", bench.said(run, "topped")


def damage(bench: Bench) -> Iterator[tuple[str, str, str]]:
    """Checkpoints that are not what they were."""
    def arrays(checkpoint):
        return max((p for p in checkpoint.glob("state/**/*") if p.is_file()),
                   key=lambda p: p.stat().st_size)

    def flip(file):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)

    for number, (name, harm) in enumerate({
            "newest checkpoint: a file cut short": lambda f: f.write_bytes(f.read_bytes()[:-9]),
            "newest checkpoint: a file missing": lambda f: f.unlink(),
            "newest checkpoint: a bit of an array flipped": flip}.items()):
        run = bench.copy(f"damage{number}")
        harm(arrays(run / "checkpoints" / "95"))
        yield name, bench.ends_equal(run), bench.said(run, "damaged")
    run = bench.copy("none")
    for checkpoint in (run / "checkpoints").iterdir():
        flip(arrays(checkpoint))
    before = sorted(p for p in run.rglob("*"))
    code = bench.code(start(NAME, run, bench.cache))
    same = sorted(p for p in run.rglob("*")) == before
    yield ("every checkpoint damaged", f"exit {code}; "
           f"{'nothing changed' if same else 'FILES CHANGED'}", bench.said(run, "damaged"))


def disks(bench: Bench) -> Iterator[tuple[str, str, str]]:
    """A disk that is full for a while, and one that can only be read for a while."""
    names = ("disk full from step 30 on, then room again", "disk full until the end",
             "read-only checkpoints from step 30 on")
    for number, name in enumerate(names):
        mount = bench.folder / f"disk{number}"
        mount.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", mount],
                          stderr=subprocess.DEVNULL).returncode:
            yield name, "left out: no right to mount", "-"
            continue
        try:
            yield name, *_on_disk(bench, mount, number)
        finally:
            subprocess.run(["umount", "-l", mount], check=False)


def make_read_only(folder: Path, process: subprocess.Popen) -> None:
    """Mounts a folder over itself, read-only as soon as the process writes no file there."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    wait_until(lambda: subprocess.run(["mount", "-o", "remount,bind,ro", folder],
                                      stderr=subprocess.DEVNULL).returncode == 0, process)


def _on_disk(bench: Bench, mount: Path, number: int) -> tuple[str, str]:
    run = bench.folder / f"on{number}"
    run.symlink_to(mount)
    checkpoints = mount / "checkpoints"
    process = start(NAME, run, bench.cache)
    wait_until(lambda: "\nstep 28" in run.with_suffix(".log").read_text(), process)
    if number == 2:
        # The whole of it could not become read-only while metrics.jsonl is open.
        make_read_only(checkpoints, process)
    else:
        with contextlib.suppress(OSError), (mount / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(4096))
                filler.flush()
    wait_until(lambda: "could not be saved" in run.with_suffix(".log").read_text(), process)
    if number == 0:
        (mount / "filler").unlink()
    code = bench.code(process)
    if number == 2:
        subprocess.run(["umount", checkpoints], check=True)
    (mount / "filler").unlink(missing_ok=True)
    with contextlib.suppress(OSError, ValueError, KeyError):
        errors = json.loads((run / "summary.json").read_text())["checkpoint_errors"]
        return (f"exit {code}, {len(errors)} checkpoint_errors in summary.json; "
                f"{bench.ends_equal(run)}", bench.said(run, "could not be saved"))
    return f"exit {code}; {bench.ends_equal(run)}", bench.said(run, "could not be saved")


def divergence(bench: Bench) -> Iterator[tuple[str, str, str]]:
    """A loss that is not finite."""
    run = bench.folder / "diverges"
    code = bench.code(start(NAME, run, bench.cache, *EXPLODING))
    yield "the loss is not finite", f"exit {code}", bench.said(run, "Stopped")
    back = (*EXPLODING, "--config.train.on_non_finite=rollback",
            "--config.train.rollback_lr_factor=1e-8", "--config.train.max_rollbacks=9")
    whole, run = bench.folder / "rolled", bench.folder / "rolled_and_killed"
    code = bench.code(start(NAME, whole, bench.cache, *back))
    count = json.loads((whole / "summary.json").read_text())["rollbacks"]
    yield "the same, on_non_finite=rollback", f"exit {code}, {count} rollbacks", bench.said(
        whole, "Going back")
    process = start(NAME, run, bench.cache, *back)
    wait_until(lambda: "Going back" in run.with_suffix(".log").read_text(), process)
    process.kill()
    process.wait()
    code = bench.code(start(NAME, run, bench.cache, *back))
    same = outcome(run) == outcome(whole)
    yield "the same, and kill -9 after the first rollback", (
        f"the same command then exits {code}, {'equal' if same else 'NOT EQUAL'}"), "-"


def main() -> None:
    """Prints the table, or what came of the kills."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--groups", nargs="*",
                        choices=["signals", "damage", "disks", "divergence"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.kills:
            raise SystemExit(not kills.run_kills(arguments.kills, Path(folder)))
        bench = Bench(Path(folder))
        print("| fault | outcome | message |\n|---|---|---|")
        groups = {group.__name__: group for group in (signals, damage, disks, divergence)}
        for group in map(groups.get, arguments.groups or groups):
            for row in group(bench):
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
