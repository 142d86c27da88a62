"""How long it takes until the first step: imports, --help, and cold and warm starts.

    python -m benchmarks.start_up

Each line is a process of its own, several times: the median, with the least and the most. "cold"
has an empty compilation cache, "warm" the cache that the cold start left. A start is over when
launch.py prints the line of its first step of two, on the embedded digits: the evaluation at the
end of a run is no part of it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def seconds(arguments: list[str], until: str | None = None, cache: Path | None = None) -> float:
    """Returns how long a command of Python takes, or how long until it prints a line.

    Args:
      arguments: of Python.
      until: how the line begins; the command is still left to finish.
      cache: a folder for compiled programs.

    Raises:
      RuntimeError: if the command fails or the line does not come.
    """
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache or ""),
                                "PYTHONUNBUFFERED": "1"}
    start, found = time.perf_counter(), None
    with subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        for line in process.stdout:
            if found is None and until and line.startswith(until):
                found = time.perf_counter() - start
    total = time.perf_counter() - start
    if process.returncode or (until and found is None):
        raise RuntimeError(f"{arguments} ended with {process.returncode}; run it to see why.")
    return found or total


def first_step(config: str, cache: Path) -> float:
    """Returns the seconds from the start of launch.py to its first step."""
    with tempfile.TemporaryDirectory() as workdir:
        return seconds(["launch.py", f"--config={config}", f"--workdir={workdir}/run",
                        "--config.train.steps=2", "--config.log.every_steps=1",
                        "--config.log.progress=plain"], "step 1/", cache)


def row(title: str, times: list[float]) -> None:
    """Prints a line of the table."""
    print(f"| {title} | {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) |",
          flush=True)


def main() -> None:
    """Prints a Markdown table of seconds."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--configs", nargs="*",
                        default=["experiments/lenet5.py", "experiments/resnet50.py"])
    arguments = parser.parse_args()
    rounds = range(arguments.rounds)
    print("| what | seconds |\n|---|---|")
    row("`python -c pass`", [seconds(["-c", "pass"]) for _ in rounds])
    row("`import cnnjax`", [seconds(["-c", "import cnnjax"]) for _ in rounds])
    row("`cnnjax.create_model`", [seconds(["-c", "import cnnjax; cnnjax.create_model"])
                                  for _ in rounds])
    row("`launch.py --help`", [seconds(["launch.py", "--help"]) for _ in rounds])
    for config in arguments.configs:
        cold, warm = [], []
        for _ in rounds:
            with tempfile.TemporaryDirectory() as cache:
                cold.append(first_step(config, Path(cache)))
                warm.append(first_step(config, Path(cache)))
        row(f"first step of `{config}`, cold", cold)
        row(f"first step of `{config}`, warm", warm)


if __name__ == "__main__":
    main()
