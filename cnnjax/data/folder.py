"""Folders of images, one sub-folder a class."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import errno
import os
from pathlib import Path

import numpy as np

from cnnjax.data import dataset, decode, statistics
from cnnjax.data.dataset import Dataset, Split
from cnnjax.data.sizes import image_size
from cnnjax.data.slices import (
    EVAL_NAMES,
    check_eval_folder,
    default_eval,
    is_part_of,
    is_passed_over,
    is_split_name,
    parse_split,
    shuffled_part,
)
from cnnjax.files import expanded
from cnnjax.types import UserError, did_you_mean

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
# Headers looked at before all of them are: photos differ within a few.
_SAMPLE = 32


@dataclasses.dataclass(frozen=True)
class _Files:
    """Image files of a split: paths relative to `folder`, sizes in bytes, labels int32 [N]."""

    folder: Path
    names: list[str]
    sizes: list[int]
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> _Files:
        return _Files(self.folder, [self.names[i] for i in indices],
                      [self.sizes[i] for i in indices], self.labels[indices])


class FolderSource:
    """Image files, decoded when asked for: RGB uint8 [H, W, 3], and the label."""

    channels = 3

    def __init__(self, paths: list[str], labels: np.ndarray, folder: Path):
        self.paths, self.labels, self.folder = paths, labels, folder

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return decode.read_image(self.paths[index]), int(self.labels[index])

    @property
    def num_bytes(self) -> int:
        """Of the files that are there."""
        return sum(os.path.getsize(path) for path in self.paths if os.path.exists(path))

    def not_read(self) -> dict[str, int]:
        """Returns how many files beside the images are none by their extension, by that."""
        found = collections.Counter()
        for name in _subfolders(self.folder):
            found.update(not_read(self.folder / name))
        return dict(found.most_common())

    def name(self, index: int) -> str:
        """Returns the path of an example's file."""
        return self.paths[index]

    def encoded(self, index: int) -> tuple[bytes, int, str]:
        """Returns (the bytes of the file, label, its path)."""
        path = self.paths[index]
        return decode.read_file(path), int(self.labels[index]), path


def open_folder(path: str | os.PathLike[str], train_split: str | None = None,
                eval_split: str | None = None, val_fraction: float = 0.2, split_seed: int = 0
                ) -> Dataset:
    """Opens PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg, or PATH/CLASS/*.jpg.

    The classes are the sub-folders in the order of `sorted`, as in torchvision's ImageFolder;
    images may lie in further sub-folders of theirs. They are JPEG, PNG, BMP, WebP or TIFF by
    their extension, whatever its case; names that begin with a dot are skipped.

    Args:
      path: the folder.
      train_split: the folder to train on, "train" by default. A part, such as "train[:10%]", is
        taken from the images after `split_seed` has shuffled them.
      eval_split: the folder to evaluate on, or a part of one; by default the first of val, valid,
        validation and test that is there. Where none is, or where PATH itself holds the classes
        and nothing or "val" is asked for, a part of the training images, each class in proportion,
        becomes the split "val".
      val_fraction: the size of that part, between 0 and 1.
      split_seed: of that division, and of the shuffling before a part is taken.

    Raises:
      UserError: if the folder is missing, has no images or fewer than two classes, or if its
        evaluation images are of classes that are not in the training images.
    """
    root, where = _check_root(path), f"folder:{path}"
    train_name = train_split or "train"
    folders = _split_folders(root, train_name)
    base = train_name.partition("[")[0] if folders else "train"
    classes = _class_names(folders.get(base, root))
    files = {base: _list_files(folders.get(base, root), classes, every_class=True)}
    if folders:
        check_eval_folder(root, folders, eval_split, "a sub-folder for each class")
    eval_name = eval_split or default_eval(folders, base, where) or ""
    draws = not eval_name or (not folders and eval_name.partition("[")[0] == "val")
    if draws:
        parts = dataset.stratified_split(files[base].labels, val_fraction, split_seed)
        files = {name: files[base].take(part) for name, part in
                 zip((base, "val"), parts, strict=True)}
        eval_name = eval_name or "val"

    def split(name: str) -> tuple[_Files, Split]:
        folder, part = parse_split(name, folders | files, where)
        if folder not in files:
            _check_classes(folders[folder], classes)
            files[folder] = _list_files(folders[folder], classes)
        found = _take_part(files[folder], part, split_seed, where)
        paths = [os.path.join(found.folder, name) for name in found.names]
        source = FolderSource(paths, found.labels, found.folder)
        return found, Split(name, source, _common_shape(paths))

    (train_files, train), (eval_files, evaluation) = split(train_name), split(eval_name)
    mean, std = statistics.mean_and_std("", channels=3)
    return Dataset(name=where, class_names=tuple(classes), train=train, eval=evaluation,
                   mean=mean, std=std, divided=draws or is_part_of(eval_name, train_name),
                   fingerprint=dataset.digest(
                       classes, train_name, train_files.names, train_files.sizes,
                       eval_name, eval_files.names, eval_files.sizes))


def list_images(path: str | os.PathLike[str]) -> list[Path]:
    """Returns the image files below a folder, sorted, or the one that `path` is.

    Raises:
      UserError: if there is no such file or folder, or it has no images.
    """
    root = expanded(path)
    if root.is_file():
        return [root]
    if not root.is_dir():
        near = did_you_mean(root.name, os.listdir(root.parent)) if root.parent.is_dir() else ""
        raise UserError(f"There is no file or folder {root}.{near}")
    found = sorted(root / name.partition("/")[2] for name, _ in _walk(root, ""))
    if not found:
        raise UserError(f"There are no images in {root}. They are files with the extensions "
                        f"{', '.join(EXTENSIONS)}, in it or in its sub-folders."
                        + _there_are(root))
    return found


def _check_root(path: str | os.PathLike[str]) -> Path:
    root = expanded(path)
    if root.is_dir() and os.fspath(path):
        return root
    near = ""
    if root.parent.is_dir():
        near = did_you_mean(root.name, _subfolders(root.parent))
    raise UserError(f"There is no folder {root.absolute()}.{near} Give --config.data.name="
                    "folder:PATH the folder that holds train/ and val/, or one sub-folder for "
                    "each class.")


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries
                      if not is_passed_over(e.name) and _is_folder(e))


def _is_folder(entry: os.DirEntry) -> bool:
    """Whether it is a folder or a link to one: without a call of the file system, but for links."""
    return entry.is_dir(follow_symlinks=False) or (
        entry.is_symlink() and os.path.isdir(entry.path))


def _split_folders(root: Path, train_name: str) -> dict[str, Path]:
    """Returns the folders of classes in `root` by name; none if it holds the classes itself."""
    parts = {name: root / name for name in _subfolders(root) if _subfolders(root / name)}
    if train_name.partition("[")[0] in parts:
        return parts
    evaluation = [name for name in EVAL_NAMES if name in parts]
    if evaluation:
        raise UserError(
            f"{root} has {evaluation[0]}/ but no {train_name.partition('[')[0]}/ with a sub-folder "
            "for each class. Name the folder of training images with --config.data.train_split; "
            f"there are: {', '.join(parts)}.")
    names = _subfolders(root)
    if names and all(is_split_name(name) for name in names):
        raise UserError(f"{root} has {', '.join(names)}, which look like splits, not like classes: "
                        + ("name them with --config.data.train_split and --config.data.eval_split."
                           if parts else "put the images of each into a sub-folder for each class, "
                           f"such as {names[-1]}/cat/1.jpg."))
    return {}


def _class_names(folder: Path) -> list[str]:
    for name in os.listdir(folder):
        path = folder / name
        if path.is_symlink() and not path.exists() and not name.startswith("."):
            raise UserError(f"{path}, beside the classes, is a link to nothing: mend or remove it.")
    classes = _subfolders(folder)
    if len(classes) < 2:
        what = f"only one class, {classes[0]!r}" if classes else "no sub-folders"
        raise UserError(f"{folder} has {what}. Put the images of each class, two or more, into a "
                        "sub-folder of its own, such as cat/1.jpg and dog/1.jpg.")
    return classes


def _check_classes(folder: Path, classes: list[str]) -> None:
    unknown = [name for name in _subfolders(folder) if name not in classes]
    if unknown:
        raise UserError(
            f"{folder} has classes that the training images have not: {', '.join(unknown[:5])}. "
            f"Those are: {', '.join(classes[:20])}. Rename or remove the folders."
            + did_you_mean(unknown[0], classes))


def _list_files(folder: Path, classes: list[str], every_class: bool = False) -> _Files:
    # Listing is waiting for the file system, often over a network: one thread a class.
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda name: sorted(_walk(folder / name, name)), classes))
    empty = [name for name, files in zip(classes, found, strict=True) if not files]
    if len(empty) == len(classes):
        raise UserError(f"There are no images in {folder}. They are files with the extensions "
                        f"{', '.join(EXTENSIONS)}, in one sub-folder for each class."
                        + _there_are(folder))
    if empty and every_class:
        raise UserError(f"The class folder {folder / empty[0]} has no images: add some, or remove "
                        f"it ({len(empty)} such folders)." + _there_are(folder / empty[0]))
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(files) for files in found])
    files = [file for of_class in found for file in of_class]
    return _Files(folder, [name for name, _ in files], [size for _, size in files], labels)


def not_read(folder: Path) -> collections.Counter[str]:
    """Returns how many files below a folder are no images by their extension, by that."""
    return collections.Counter(os.path.splitext(name)[1].lower() or "without an extension"
                               for name, _ in _walk(folder, "", images=False))


def _there_are(folder: Path) -> str:
    """Returns the sentence on the files that are there in place of images, if there are any."""
    found = not_read(folder).most_common(5)
    kinds = ", ".join(f"{kind} ({count:,})" for kind, count in found)
    return f" There are other files: {kinds}." if found else ""


def _walk(folder: Path | str, prefix: str, above: tuple[Path | str, ...] = (), images: bool = True
          ) -> list[tuple[str, int]]:
    """Returns (path from the split's folder, bytes) of the images below a folder.

    Links to folders are followed. `above` are the folders on the way to this one. Without `images`
    it is the other files.
    """
    if not os.path.isdir(folder):
        return []
    files, above = [], (*above, folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}/{entry.name}"
            if is_passed_over(entry.name):
                continue
            if _is_folder(entry):
                if entry.is_symlink():
                    _check_that_it_ends(entry.path, above)
                files += _walk(entry.path, name, above, images)
            elif entry.name.lower().endswith(EXTENSIONS) == images:
                files.append((name, _bytes(entry)))
    return files


def _check_that_it_ends(link: str, above: tuple[Path | str, ...]) -> None:
    """Raises a UserError if a link leads to a folder on the way to it, or to one that holds it."""
    target = os.path.realpath(link)
    for folder in above:
        if os.path.commonpath([target, os.path.realpath(folder)]) == target:
            raise UserError(f"{link} is a link to {target}, a folder that it lies in: remove the "
                            "link.")


def _bytes(entry: os.DirEntry) -> int:
    """Returns the size of a file; 0 of a link to nothing, of which reading it will tell."""
    try:
        return entry.stat().st_size
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):  # ELOOP: a link to itself.
            raise
        return 0


def _take_part(files: _Files, part: slice, seed: int, where: str) -> _Files:
    # The files are in the order of their classes: the first half would be half of the classes.
    chosen = shuffled_part(part, len(files.names), seed, where)
    return files if chosen is None else files.take(chosen)


def _common_shape(paths: list[str]) -> tuple[int, int, int] | None:
    """Returns (H, W, 3) if all images have one size, else None. Reads headers only.

    Files without a header that can be read don't count: whoever decodes them says what is wrong.
    """
    if len({image_size(path) for path in paths[::-(-len(paths) // _SAMPLE)]} - {None}) > 1:
        return None
    with concurrent.futures.ThreadPoolExecutor() as pool:
        sizes = set(pool.map(image_size, paths)) - {None}
    return (*sizes.pop(), 3) if len(sizes) == 1 else None
