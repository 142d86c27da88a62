"""What happens to a run when something goes wrong.

    python -m benchmarks.faults               a table: fault, outcome, message
    python -m benchmarks.faults --kills=200   kill -9 at random moments (benchmarks/kills.py)
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import kills


def main() -> None:
    """Prints the table, or what came of the kills."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.kills:
            raise SystemExit(not kills.run_kills(arguments.kills, Path(folder)))


if __name__ == "__main__":
    main()
