"""What a run has left in its workdir."""

import json

from cnnjax.train.writers import TIMING_FIELDS, read_metrics


def summary(folder):
    """Returns summary.json."""
    return json.loads((folder / "summary.json").read_text())


def lines(folder):
    """Returns the lines of metrics.jsonl without what depends on the clock."""
    return [{k: v for k, v in r.items() if k not in TIMING_FIELDS} for r in read_metrics(folder)]
