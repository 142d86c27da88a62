"""--job=summarize --what=data: what the data set holds, and what the model will see of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cnnjax import data
from cnnjax.analysis import text
from cnnjax.analysis.rendering import colors_shown
from cnnjax.checkpoint import warn
from cnnjax.data.survey import Survey, duplicates, survey
from cnnjax.files import write_whole
from cnnjax.jobs import augmented_sheet, console, workdir
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.bad_files import BadFiles
from cnnjax.jobs.experiment import Experiment

RESULT, PICTURE = "data.json", "data.png"
# Names of files, and classes, that are printed; the JSON file has all of them.
_NAMED, _CLASSES = 20, 20


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Reads all of both splits; prints what they hold, and writes data.json and data.png.

    Examples that cannot be read are named and left out, whatever `data.on_error` says.
    """
    with config.unlocked():
        config.data.on_error, config.data.placement = "skip", "stream"
    # The survey itself tells of bad files.
    experiment = dataclasses.replace(experiment_lib.build(config, trains=False),
                                     bad_files=BadFiles(quiet=True))
    dataset, preprocess = experiment.dataset, experiment.preprocess
    # The first batch is drawn in the end.
    data.check_batch_size(config.train.batch_size, len(dataset.train), experiment.mesh)
    if dry_run:
        print(f"Would read {len(dataset.train):,} + {len(dataset.eval):,} examples of "
              f"{dataset.name}.")
        return 0
    workdir.check_writable(folder)
    parts = [survey(split, preprocess.size, preprocess.crop, preprocess.interpolation,
                    config.data.threads) for split in (dataset.train, dataset.eval)]
    groups = duplicates(*parts)
    values = {"data": dataset.name, "fingerprint": dataset.fingerprint,
              "input_size": preprocess.size, "mean": preprocess.mean, "std": preprocess.std,
              "splits": {part.split.name: _values(part, dataset.class_names) for part in parts},
              "not_read": _not_read(dataset),
              "duplicates": [[part.name(i) for part, i in group] for group in groups],
              "in_both_splits": [[part.name(i) for part, i in group] for group in groups
                                 if len({id(part) for part, _ in group}) > 1],
              "two_classes": [[part.name(i) for part, i in group] for group in groups
                              if len({int(part.labels[i]) for part, i in group}) > 1]}
    workdir.write_json(folder / RESULT, values)
    _print(values, experiment)
    write_whole(folder / PICTURE, augmented_sheet.draw(experiment, parts[0].labels >= 0))
    print(f"Written: {folder / RESULT}, {folder / PICTURE}")
    if note := colors_shown(preprocess.channels):
        print(note)
    return 0


def _not_read(dataset: data.Dataset) -> dict[str, dict[str, int]]:
    """Returns {folder: how many files in it are no images by their extension}, each folder once."""
    sources = {source.folder: source for source in (dataset.train.source, dataset.eval.source)
               if hasattr(source, "not_read")}
    return {str(folder): counts for folder, source in sources.items()
            if (counts := source.not_read())}


def _values(part: Survey, class_names: Sequence[str]) -> dict[str, Any]:
    good = part.labels >= 0
    counts = np.bincount(part.labels[good], minlength=len(class_names))
    sizes = part.sizes[good]
    by_area = sizes[np.argsort(sizes.prod(1), kind="stable")]
    return {
        "examples": len(part.labels), "readable": int(good.sum()), "bytes": part.num_bytes,
        "kinds": dict(part.kinds.most_common()),
        "sizes": len(np.unique(sizes, axis=0)),
        **{name: by_area[i].tolist() for name, i in (
            ("smallest", 0), ("median", len(by_area) // 2), ("largest", -1))},
        "shortest_side": int(sizes.min()), "longest_side": int(sizes.max()),
        "mean": part.mean, "std": part.std,
        "classes": dict(zip(_distinct(class_names), counts.tolist(), strict=True)),
        "bad_files": [{"name": name, "reason": reason} for _, name, reason in part.problems]}


def _distinct(names: Sequence[str]) -> list[str]:
    """Returns names with the number of the class behind those that several have: ImageNet's crane.
    """
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)]


def _print(values: dict[str, Any], experiment: Experiment) -> None:
    height, width = values["input_size"]
    for name, part in values["splits"].items():
        console.print_table(f"{values['data']}, {name}", {
            "examples": f"{part['examples']:,}" + (
                f", of which {part['readable']:,} can be read" if part["bad_files"] else ""),
            **({"on disk": text.size(part["bytes"])} if part["bytes"] else {}),
            "sizes": _sizes(part),
            "kinds": ", ".join(f"{kind}: {count:,}" for kind, count in part["kinds"].items()),
            f"mean at {height}x{width}": _numbers(part["mean"]) + "; the config's "
                                         + _numbers(values["mean"]),
            f"std at {height}x{width}": _numbers(part["std"]) + "; the config's "
                                        + _numbers(values["std"]),
            **_balance(part["classes"]),
        })
    for folder, counts in values["not_read"].items():
        print(f"Not read in {folder}: {console.other_files(counts)}.")
    equal = values["duplicates"]
    print(f"Examples whose pixels are equal: {sum(map(len, equal)):,} in {len(equal):,} groups.")
    _warn_of(values["in_both_splits"], "in both splits, so that the accuracy says too much")
    _warn_of(values["two_classes"], "in two classes")
    bad = [f"{entry['name']} {entry['reason']}" for part in values["splits"].values()
           for entry in part["bad_files"]]
    if bad:
        warn(f"{len(bad):,} examples cannot be read. Remove them, or train with "
             "--config.data.on_error=skip:\n  " + "\n  ".join(bad))


def _warn_of(groups: Sequence[Sequence[str]], what: str) -> None:
    if groups:
        shown = "\n  ".join(" = ".join(group) for group in groups[:_NAMED])
        more = f"\n  and {len(groups) - _NAMED:,} more" if len(groups) > _NAMED else ""
        warn(f"Equal images {what} ({len(groups):,}):\n  {shown}{more}")


def _sizes(part: dict[str, Any]) -> str:
    def text(size):
        return f"{size[0]}x{size[1]}"

    if part["sizes"] == 1:
        return f"all {text(part['median'])}"
    return (f"{part['sizes']:,} different ones; by area from {text(part['smallest'])} over "
            f"{text(part['median'])} (median) to {text(part['largest'])}; sides from "
            f"{part['shortest_side']:,} to {part['longest_side']:,}")


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4f}" for value in values) + ")"


def _balance(counts: dict[str, int]) -> dict[str, str]:
    """Returns how many examples each class has, of many classes only the extremes."""
    total, order = sum(counts.values()), sorted(counts, key=counts.get)
    shown = list(counts) if len(counts) <= _CLASSES else [*order[:5], *order[:-6:-1]]
    least, most = counts[order[0]], counts[order[-1]]
    ratio = f"{most / least:.3g}" if least else "infinite: a class has none"
    return {"classes": f"{len(counts):,}; largest over smallest {ratio}"
            + ("" if len(counts) <= _CLASSES else "; the smallest and the largest five:"),
            **{f"  {name}": f"{counts[name]:,} ({counts[name] / total:.1%})" for name in shown}}
