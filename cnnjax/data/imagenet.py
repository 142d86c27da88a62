"""ILSVRC2012 straight from its tar files, which nobody needs to unpack into 1.3 million files.

The training file is a tar of 1000 tars, one a class. What lies in a tar lies there whole and in one
piece, and so does what lies in a tar in a tar: an offset is enough to read it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from cnnjax.data import dataset, statistics, tar_index, tar_source
from cnnjax.data.dataset import Dataset
from cnnjax.data.tar_index import Shard
from cnnjax.files import expanded
from cnnjax.types import UserError, did_you_mean

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12"
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
# The synset of each validation image, in the order of their names, as TensorFlow's tools keep it.
SYNSET_LABELS = "imagenet_2012_validation_synset_labels.txt"
_SYNSET = re.compile(r"n\d{8}")


def open_imagenet(path: str, train_split: str | None = None, eval_split: str | None = None,
                  val_fraction: float = 0.2, split_seed: int = 0) -> Dataset:
    """Opens a folder with the files that image-net.org gives.

    They are ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, and for the classes of the latter
    ILSVRC2012_devkit_t12.tar.gz (or the folder that comes of it), or a text file
    imagenet_2012_validation_synset_labels.txt with one synset a line. The classes are the synsets
    in the order of `sorted`, as in torchvision's ImageFolder of the extracted files.

    Args:
      path: the folder.
      train_split: "train" by default; a part, such as "train[:10%]", is taken after shuffling.
      eval_split: "validation" by default.
      val_fraction: not used: there is a split to evaluate on.
      split_seed: of the shuffling before a part is taken.

    Raises:
      UserError: if a file is missing or damaged, or the classes do not fit the images.
    """
    where, root = f"imagenet:{path}", expanded(path)
    if not path or not root.is_dir():
        known = [p.name for p in root.parent.iterdir()] if root.parent.is_dir() else []
        raise UserError(f"There is no folder {root.absolute()}.{did_you_mean(root.name, known)} "
                        f"imagenet:PATH is the folder with {TRAIN}, {VALIDATION} and "
                        f"{DEVKIT}.tar.gz.")
    (train,) = tar_index.indexed([_file(root, TRAIN)], scan_train, "imagenet train")
    synsets = _synsets(train.path)

    def shards_of(name: str) -> list[Shard]:
        if name == "train":
            return [train]
        labels = read_validation_labels(root, synsets)
        return tar_index.indexed([_file(root, VALIDATION)],
                                 functools.partial(scan_validation, labels=labels),
                                 dataset.digest("imagenet validation", labels))

    names = ("train", "validation")
    training, evaluation, digest = tar_source.open_splits(
        shards_of, names, train_split or "train", eval_split or "validation", val_fraction,
        split_seed, where)
    mean, std = statistics.mean_and_std("", channels=3)
    return Dataset(name=where, class_names=tuple(synsets), train=training, eval=evaluation,
                   mean=mean, std=std, fingerprint=dataset.digest(synsets, digest))


def scan_train(path: str) -> Shard:
    """Looks through the tar of tars: the label is the place of the inner tar's name in `sorted`.

    Raises:
      UserError: if it holds something else, or is damaged.
    """
    synsets = {name: label for label, name in enumerate(_synsets(path))}
    with tar_index.opened(path) as file:
        builder = tar_index.ShardBuilder(path, file)
        for inner in tar_index.members(path, file):
            start, label = inner.offset_data, synsets[_synset(inner)]
            for member in tar_index.members(f"{path}: {inner.name}", file, start,
                                            start + inner.size):
                builder.add(member, label)
        return builder.shard()


def scan_validation(path: str, labels: Sequence[int]) -> Shard:
    """Looks through the tar of validation images, whose labels are in the order of their names.

    Raises:
      UserError: if there are not as many images as labels, or it is damaged.
    """
    with tar_index.opened(path) as file:
        builder = tar_index.ShardBuilder(path, file)
        found = sorted(tar_index.members(path, file), key=lambda member: member.name)
        if len(found) != len(labels):
            raise UserError(f"{path} has {len(found):,} images, but there are classes for "
                            f"{len(labels):,}: one of the two files is not whole.")
        for member, label in zip(found, labels, strict=True):
            builder.add(member, label)
        return builder.shard()


def read_validation_labels(root: Path, synsets: Sequence[str]) -> list[int]:
    """Returns the class of each validation image, in the order of their names.

    Args:
      root: the folder of `open_imagenet`.
      synsets: the classes, such as "n01440764", in order.

    Raises:
      UserError: if no file says it, or one names a class that is not among `synsets`.
    """
    if (root / SYNSET_LABELS).is_file():
        source = root / SYNSET_LABELS
        words = source.read_text(encoding="utf-8-sig", errors="replace").split()
    else:
        source, words = _from_devkit(root)
    number = {name: label for label, name in enumerate(synsets)}
    unknown = [word for word in words if word not in number]
    if unknown:
        raise UserError(f"{source}: the class {unknown[0]!r} is not one of the {len(synsets)} in "
                        f"{root / TRAIN} ({len(unknown):,} such images).")
    return [number[word] for word in words]


def _from_devkit(root: Path) -> tuple[Path, list[str]]:
    """Returns where the synsets of the validation images were read, and them."""
    import scipy.io

    source, files = _devkit_files(root)
    try:
        table = scipy.io.loadmat(io.BytesIO(files[META]), squeeze_me=True)["synsets"]
        names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in table}
        return source, [names[int(word)] for word in files[GROUND_TRUTH].split()]
    except Exception as error:  # scipy's own are of many kinds.
        raise UserError(f"{source}: {META} and {GROUND_TRUTH} are not those of ILSVRC2012 "
                        f"({type(error).__name__}: {error}).") from None


def _devkit_files(root: Path) -> tuple[Path, Mapping[str, bytes]]:
    """Returns the bytes of GROUND_TRUTH and META, read out of the archive or a folder."""
    wanted = (GROUND_TRUTH, META)
    for folder in (root, root / "data", root / DEVKIT / "data"):
        if all((folder / name).is_file() for name in wanted):
            return folder, {name: (folder / name).read_bytes() for name in wanted}
    archive = root / f"{DEVKIT}.tar.gz"
    if not archive.is_file():
        raise UserError(
            f"The classes of the validation images are in {archive.name}, which is not in {root}. "
            f"Put it there, or a text file {SYNSET_LABELS} with one synset a line; or evaluate on "
            "training images: --config.data.train_split='train[:95%]' "
            "--config.data.eval_split='train[95%:]'.")
    try:
        with tarfile.open(archive) as file:
            return archive, {name: file.extractfile(f"{DEVKIT}/data/{name}").read()
                             for name in wanted}
    except (tarfile.TarError, OSError, EOFError, KeyError, AttributeError) as error:
        raise UserError(f"{archive} is not the development kit of ILSVRC2012, or is damaged "
                        f"({error}).") from None


def _file(root: Path, name: str) -> str:
    if not (root / name).is_file():
        raise UserError(f"There is no {name} in {root}. It is downloaded from image-net.org, after "
                        "registration; docs/imagenet.md has other ways.")
    return str(root / name)


@functools.cache
def _synsets_at(path: str, stamp: tuple[int, int]) -> tuple[str, ...]:
    with tar_index.opened(path) as file:
        members = list(tar_index.members(path, file))
    wrong = [member.name for member in members
             if not member.name.endswith(".tar") or not _SYNSET.fullmatch(_synset(member))]
    names = {_synset(member) for member in members}
    if wrong or len(names) < max(2, len(members)):
        found = wrong or [member.name for member in members]
        raise UserError(f"{path} is not {TRAIN}, which holds one tar file for each class, such as "
                        f"n01440764.tar. It holds: {', '.join(found[:5]) or 'nothing'}.")
    return tuple(sorted(names))


def _synset(member: tarfile.TarInfo) -> str:
    """Returns the name of an inner tar without its folder, such as "./", and without ".tar"."""
    return PurePosixPath(member.name).name.removesuffix(".tar")


def _synsets(path: str) -> tuple[str, ...]:
    """Returns the names of the inner tars without ".tar", sorted."""
    with contextlib.suppress(OSError):
        return _synsets_at(path, tar_index.stamp(path))
    raise UserError(f"{path} cannot be read.")
