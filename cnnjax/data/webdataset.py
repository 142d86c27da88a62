"""Tar shards in the layout of WebDataset: files of one example have one name up to the first dot.

https://github.com/webdataset/webdataset. That library reads shards from front to back; here any
example can be asked for by number, which is what a resume and a shuffled order need.
"""

from __future__ import annotations

import functools
import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cnnjax.data import dataset, statistics, tar_index, tar_source
from cnnjax.data.dataset import Dataset
from cnnjax.data.slices import (
    EVAL_NAMES,
    SPLIT_NAMES,
    check_eval_folder,
    default_eval,
    is_part_of,
    is_passed_over,
    parse_split,
)
from cnnjax.data.tar_index import Shard
from cnnjax.files import expanded
from cnnjax.types import UserError, did_you_mean

IMAGES = ("jpg", "jpeg", "png", "webp")
# Under which a .json member may have the class, as a number or as one of the class names.
LABEL_KEYS = ("label", "cls", "class_id")
_CLASS_FILES = ("classes.txt", "classes.json")
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
# Those that are looked for by default come first: dev-train-0000.tar is to train on.
_WORDS = [re.compile(rf"(?:^|[-_.])({'|'.join(names)})(?=[-_.\d]|$)", re.IGNORECASE)
          for names in (("train", *EVAL_NAMES), SPLIT_NAMES)]
_MOST_FILES = 1_000_000  # In one pair of braces.
# Who gives tar the files by "*.jpg *.cls" gets all of the images first.
_SIDE_BY_SIDE = ("The files of an example lie side by side in the archive: tar --sort=name -cf "
                 "SHARD.tar -C FOLDER . writes them so.")
_LONGEST_TEXT = 2**24  # Bytes of a .cls or .json member.


def open_shards(path: str, train_split: str | None = None, eval_split: str | None = None,
                val_fraction: float = 0.2, split_seed: int = 0) -> Dataset:
    """Opens tar shards.

    PATH is a folder with train/*.tar and val/*.tar; or a folder of tar files whose names say what
    they are, such as train-0000.tar and imagenet-val-0000.tar; or a pattern for the names of the
    training shards, "DIR/train-{0000..0146}.tar" or "DIR/train-*.tar". The splits may be patterns
    too.

    An example is a .jpg, .jpeg, .png or .webp file and, beside it, its class from 0 on: a .cls file
    with the number, or a .json file with it under "label", "cls" or "class_id". Class names are
    optional: classes.txt, one a line, or classes.json, a list, in the folder of the shards. With
    them a .json file may give the name. Other files are not looked at.

    Args:
      path: folder or pattern.
      train_split: "train" by default, or what the pattern matches. A part, such as "train[:10%]",
        is taken from the images after `split_seed` has shuffled them.
      eval_split: by default the first of val, valid, validation and test that is there. Where none
        is, a part of the training images, each class in proportion, becomes the split "val".
      val_fraction: the size of that part, between 0 and 1.
      split_seed: of that division, and of the shuffling before a part is taken.

    Raises:
      UserError: if there are no shards, one is missing, damaged, or holds an example without an
        image or a class.
    """
    where = f"wds:{path}"
    folder, groups, train_name = _find_groups(path, train_split)
    for name in filter(None, (train_name, eval_split)):
        base = name.partition("[")[0]
        if base not in groups and _is_pattern(base):
            groups[base] = _expand(folder, base)
    base, _ = parse_split(train_name, groups, where)
    class_names = _read_class_names([folder, Path(groups[base][0]).parent])
    scan = functools.partial(scan_shard, class_names=class_names)
    shards_of = functools.cache(lambda name: tar_index.indexed(
        groups[name], scan, dataset.digest("webdataset", class_names)))
    check_eval_folder(folder, groups, eval_split, "tar files, *.tar")
    eval_name = eval_split or default_eval(groups, base, where)
    train, evaluation, digest = tar_source.open_splits(
        shards_of, groups, train_name, eval_name, val_fraction, split_seed, where)
    # Of whole splits: a part may lack classes.
    used = {base, eval_name and eval_name.partition("[")[0]} & set(groups)
    labels = np.concatenate([shard.labels for name in sorted(used) for shard in shards_of(name)])
    class_names = class_names or dataset.numbered_classes(
        labels, where, "in classes.txt beside the shards")
    dataset.check_labels(labels, len(class_names), where)
    if len(class_names) < 2:
        raise UserError(f"{where} has only one class; there is nothing to learn to tell apart.")
    mean, std = statistics.mean_and_std("", channels=3)
    return Dataset(name=where, class_names=class_names, train=train, eval=evaluation, mean=mean,
                   std=std, divided=evaluation.name.partition("[")[0] not in groups
                   or is_part_of(evaluation.name, train.name),
                   fingerprint=dataset.digest(class_names, digest))


def scan_shard(path: str, class_names: Sequence[str] = ()) -> Shard:
    """Looks through a tar file of examples.

    Args:
      path: of the file.
      class_names: for .json members that have the name of the class.

    Raises:
      UserError: if it is damaged, or an example has no image, several, or no class.
    """
    with tar_index.opened(path) as file:
        builder = tar_index.ShardBuilder(path, file)
        for key, found in _examples(path, file):
            images = [ext for ext in IMAGES if ext in found]
            if len(images) != 1:
                what = f"several images, {', '.join(images)}" if images else "no image"
                raise UserError(f"{path}: the example {key!r} has {what} (its files: "
                                f"{', '.join(found)}). It takes one, named "
                                f"{key}.{' or .'.join(IMAGES)}. {_SIDE_BY_SIDE}")
            builder.add(found[images[0]], _label(path, file, key, found, class_names))
        return builder.shard()


def _examples(path: str, file: BinaryIO) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Yields (name, members by lower-case extension) of the examples, which lie one by one."""
    key, found = None, {}
    for member in tar_index.members(path, file):
        folder, _, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        stem = f"{folder}/{stem}" if folder else stem
        if stem != key:
            if found:
                yield key, found
            key, found = stem, {}
        if extension.lower() in found:
            raise UserError(f"{path}: {member.name!r} is in it twice.")
        found[extension.lower()] = member
    if found:
        yield key, found


def _label(path: str, file: BinaryIO, key: str, found: dict[str, tarfile.TarInfo],
           class_names: Sequence[str]) -> int:
    if "cls" in found:
        text = _text(path, file, found["cls"]).strip()
        try:
            return int(text)
        except ValueError:
            raise UserError(f"{path}: {key}.cls holds {text[:40]!r}; it takes the number of the "
                            "class, from 0 on.") from None
    value = None
    if "json" in found:
        try:
            values = json.loads(_text(path, file, found["json"]))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: {key}.json is not JSON ({error}).") from None
        if isinstance(values, dict):
            value = next((values[name] for name in LABEL_KEYS if name in values), None)
    if isinstance(value, str) and value in class_names:
        return class_names.index(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if value is not None:
        raise UserError(f"{path}: {key}.json gives the class {value!r}; it takes a number from 0 "
                        "on, or a name that is in classes.txt beside the shards."
                        + did_you_mean(str(value), class_names))
    raise UserError(f"{path}: the example {key!r} has no class (its files: {', '.join(found)}). "
                    f"Give it a file {key}.cls with the number, or {key}.json with the number as "
                    f"{', '.join(map(repr, LABEL_KEYS[:-1]))} or {LABEL_KEYS[-1]!r}. "
                    + _SIDE_BY_SIDE)


def _text(path: str, file: BinaryIO, member: tarfile.TarInfo) -> str:
    if member.size > _LONGEST_TEXT:
        raise UserError(f"{path}: {member.name} has {member.size:,} bytes, too many for a class.")
    file.seek(member.offset_data)
    try:
        return file.read(member.size).decode()
    except UnicodeDecodeError:
        raise UserError(f"{path}: {member.name} is not text in UTF-8.") from None


def _is_pattern(name: str) -> bool:
    return name.endswith(".tar") or bool(set(name) & set("{*?"))


def _find_groups(path: str, train_split: str | None) -> tuple[Path, dict[str, list[str]], str]:
    """Returns the folder, its tar files by split, and the name of the split to train on."""
    if "://" in path or path.startswith("pipe:"):
        raise UserError(f"wds:{path}: examples are read by number, which needs files on this "
                        "machine or on a file system that it sees. Copy the shards there.")
    root = expanded(path)
    if path and root.is_dir():
        groups = _groups(root)
        if not groups:
            raise UserError(f"There are no tar files (*.tar) in {root}, nor in folders in it. Give "
                            "--config.data.name=wds:PATH the folder of the shards, or a pattern "
                            "such as wds:DIR/train-{0000..0146}.tar.")
        return root, groups, train_split or "train"
    if not _is_pattern(root.name) or not root.parent.is_dir():
        known = os.listdir(root.parent) if path and root.parent.is_dir() else []
        raise UserError(f"There is no folder {root.absolute()}.{did_you_mean(root.name, known)} "
                        "Give --config.data.name=wds:PATH the folder of the shards, or a pattern "
                        "such as wds:DIR/train-{0000..0146}.tar.")
    chosen = _expand(root.parent, root.name)
    rest = {name: [p for p in paths if p not in chosen]
            for name, paths in _groups(root.parent, strict=False).items()}
    groups = {name: paths for name, paths in rest.items() if paths} | {root.name: chosen}
    return root.parent, groups, train_split or root.name


def _groups(folder: Path, strict: bool = True) -> dict[str, list[str]]:
    """Returns the tar files of each split, by sub-folder, else by what their names say.

    Files whose names say nothing are to train on, unless others are. That is an error if `strict`,
    as are files beside sub-folders that have some; else they belong to no split.
    """
    groups: dict[str, list[str]] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_dir() and not is_passed_over(entry.name):
                groups[entry.name] = _tars(Path(entry.path))
    groups = {name: paths for name, paths in groups.items() if paths}
    if groups and strict and (own := _tars(folder)):
        raise UserError(f"{folder} has tar files in {', '.join(f'{name}/' for name in groups)} and "
                        f"others beside, such as {os.path.basename(own[0])}, of which nobody says "
                        "what they are for. Move those into a folder of a split, such as val/, or "
                        "give patterns: --config.data.name=wds:DIR/train-{0000..0146}.tar "
                        "--config.data.eval_split='PATTERN'.")
    if not groups:
        unnamed = []
        for path in _tars(folder):
            words = [pattern.search(os.path.basename(path)) for pattern in _WORDS]
            if word := words[0] or words[1]:
                name = word[1].lower()
                groups.setdefault("train" if name == "training" else name, []).append(path)
            else:
                unnamed.append(path)
        if unnamed and "train" in groups and strict:
            raise UserError(
                f"{folder} has {os.path.basename(unnamed[0])} and {len(unnamed) - 1} more tar "
                f"files whose names say no split, beside those of {', '.join(groups)}. Give "
                "patterns: "
                "--config.data.name=wds:DIR/train-{0000..0146}.tar "
                "--config.data.eval_split='PATTERN'.")
        if unnamed:
            groups.setdefault("train", unnamed)
        if len(groups) == 1 and not set(groups) & {"train", *EVAL_NAMES}:
            groups = dict(train=groups.popitem()[1])  # All are called dev-…
    return groups


def _tars(folder: Path) -> list[str]:
    # Path.glob takes a folder that may not be read for an empty one.
    return sorted(os.fspath(folder / name) for name in os.listdir(folder)
                  if name.endswith(".tar") and not name.startswith("."))


def _expand(folder: Path, pattern: str) -> list[str]:
    """Returns the files that a pattern with braces, as in bash, or with * and ? means."""
    paths = []
    for name in expand_braces(pattern):  # Braces and stars in the name of the folder are its own.
        found = sorted(glob.glob(name, root_dir=folder)) if set(name) & set("*?") else [name]
        found = [os.fspath(folder / name) for name in found]
        paths += [path for path in found if os.path.isfile(path)] or [None]
    missing = paths.count(None)
    if missing:
        raise UserError(f"{folder / pattern} names {len(paths)} tar files or patterns, of which "
                        f"{missing} are not there. There are: "
                        f"{', '.join(os.path.basename(p) for p in _tars(folder)[:8]) or 'none'}.")
    return list(dict.fromkeys(paths))


def expand_braces(pattern: str) -> list[str]:
    """Returns the texts that a pattern with "{0..3}", "{00..12}" or "{a,b}" means, as in bash."""
    match = _BRACES.search(pattern)
    if not match:
        return [pattern]
    first, last, choices = match.groups()
    if choices is None:
        if abs(int(last) - int(first)) >= _MOST_FILES:
            raise UserError(f"{match[0]} stands for more files than there can be.")
        step = 1 if int(first) <= int(last) else -1
        padded = any(len(text) > 1 and text[0] == "0" for text in (first, last))
        width = max(len(first), len(last)) if padded else 0
        words = [f"{i:0{width}d}" for i in range(int(first), int(last) + step, step)]
    else:
        words = choices.split(",")
    return [text for word in words
            for text in expand_braces(pattern[:match.start()] + word + pattern[match.end():])]


def _read_class_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """Returns the names in classes.txt or classes.json of the first folder that has one."""
    found = [folder / name for folder in folders for name in _CLASS_FILES
             if (folder / name).is_file()]
    if not found:
        return ()
    try:
        text = found[0].read_text(encoding="utf-8-sig")
        names = (json.loads(text) if found[0].suffix == ".json"
                 else [line.strip() for line in text.splitlines() if line.strip()])
    except (OSError, ValueError) as error:
        raise UserError(f"{found[0]} cannot be read: {error}.") from None
    if not isinstance(names, list) or len(names) < 2 or len(set(map(str, names))) < len(names):
        raise UserError(f"{found[0]} takes the names of two classes or more, each once, in the "
                        "order of their numbers: one a line, or as a list in JSON.")
    return tuple(map(str, names))
