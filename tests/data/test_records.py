import errno
import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import CopySettings, open_dataset, records, resized_copy, write_copy
from cnnjax.data.alone import alone
from cnnjax.data.array_record import unread
from cnnjax.data.bad_examples import BadExample
from cnnjax.types import UserError

SETTINGS = CopySettings(short_side=24, quality=95, shard_bytes=8000)


@pytest.fixture
def copied(image_folder, tmp_path):
    """The photos of image_folder, in several files."""
    return write_copy(open_dataset(f"folder:{image_folder}"), image_folder, tmp_path / "copy",
                      SETTINGS, log=lambda line: None)


def everything(split):
    return [split.source.encoded(i) for i in range(len(split))]


def test_small_images_are_copied_as_they_are_and_others_shrunk(image_folder, copied):
    original = open_dataset(f"folder:{image_folder}")
    copy = open_dataset(f"records:{copied}")
    assert copy.class_names == original.class_names
    assert (copy.train.name, copy.eval.name) == ("train", "val")
    for a, b in ((original.train, copy.train), (original.eval, copy.eval)):
        assert len(a) == len(b)
        for i in range(len(a)):
            (image, label), (small, same_label) = a.source[i], b.source[i]
            assert label == same_label
            name = os.path.relpath(a.source.paths[i], image_folder)
            assert b.source.encoded(i)[2].endswith(f"({name})")
            if min(image.shape[:2]) <= 24:
                assert a.source.encoded(i)[0] == b.source.encoded(i)[0]
            else:
                assert min(small.shape[:2]) == 24
                assert abs(small.shape[0] / small.shape[1] - image.shape[0] / image.shape[1]) < .05
                assert b.source.encoded(i)[0][:2] == b"\xff\xd8"  # JPEG
    assert min(i.shape[0] for i, _ in (copy.train.source[n] for n in range(20))) == 20


def test_a_copy_is_divided_as_its_originals_are(image_folder, tmp_path):
    for path, divided in ((image_folder, False), (image_folder / "train", True)):
        original = open_dataset(f"folder:{path}")
        copy = f"records:{write_copy(original, path, tmp_path / str(divided), CopySettings())}"
        assert original.divided == open_dataset(copy).divided == divided
        assert open_dataset(copy, train_split="train[:50%]", eval_split="train[50%:]").divided


def test_a_shrunk_photo_is_what_pillow_makes_of_it(shared_data, tmp_path):
    from PIL import Image

    original = open_dataset(f"folder:{shared_data / 'hymenoptera'}", train_split="train[:3]",
                            eval_split="val[:2]")
    folder = write_copy(original, shared_data, tmp_path / "copy", CopySettings(128, 95))
    copy = open_dataset(f"records:{folder}")
    for i in range(3):
        small, _ = copy.train.source[i]
        whole = Image.fromarray(original.train.source[i][0])
        expected = np.asarray(whole.resize(small.shape[1::-1], Image.Resampling.BOX), np.float32)
        assert np.abs(small - expected).mean() < 4  # Of 255: what JPEG loses.
        assert "hymenoptera/train/" in copy.train.source.encoded(i)[2]


def test_files_are_bounded_and_described(copied):
    about = json.loads((copied / records.ABOUT).read_text())
    shards = about["splits"]["train"]["shards"]
    assert len(shards) > 2 and sum(s["records"] for s in shards) == 20
    assert about["short_side"] == 24 and about["splits"]["train"]["examples"] == 20
    names = {s["file"] for split in about["splits"].values() for s in split["shards"]}
    assert {p.name for p in copied.iterdir()} == names | {records.ABOUT}
    source = open_dataset(f"records:{copied}").train.source
    assert source.num_bytes == sum(s["bytes"] for s in shards)
    start = 0
    for shard in shards:
        size = sum(len(source.encoded(i)[0]) for i in range(start, start + shard["records"]))
        assert size <= 8000
        start += shard["records"]


def test_a_turned_photo_stays_turned(tmp_path, write_image):
    from PIL import Image
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, side in (("a/large.jpg", 90), ("a/small.jpg", 20), ("b/1.jpg", 90), ("b/2.jpg", 9)):
        write_image(tmp_path / "in" / name, side, side + 30, exif=exif)
    original = open_dataset(f"folder:{tmp_path / 'in'}", val_fraction=0.5)
    write_copy(original, tmp_path / "in", tmp_path / "out", CopySettings(30))
    copy = open_dataset(f"records:{tmp_path / 'out'}")
    shapes = sorted(copy.train.source[i][0].shape for i in range(2))
    assert shapes == sorted((o[0] * 30 // min(o[:2]) if min(o[:2]) > 30 else o[0],
                             30 if min(o[:2]) > 30 else o[1], 3) for o in (
        original.train.source[i][0].shape for i in range(2)))


def test_copies_that_come_out_alike_are_cropped_as_their_originals_are(tmp_path, write_image):
    for i in range(8):
        write_image(tmp_path / "in" / "ab"[i % 2] / f"{i}.png", 40 * (1 + i // 2),
                    60 * (1 + i // 2), i)
    write_copy(open_dataset(f"folder:{tmp_path / 'in'}", val_fraction=0.5), tmp_path / "in",
               tmp_path / "out", CopySettings(32))
    copy = open_dataset(f"records:{tmp_path / 'out'}")
    assert copy.train.source[0][0].shape == (32, 48, 3) and copy.train.image_shape is None


def test_images_of_one_size_are_noticed(tmp_path, write_image):
    for i in range(8):
        write_image(tmp_path / "in" / "ab"[i % 2] / f"{i}.png", 40, 60, i)
    (tmp_path / "in/a/0.png").write_bytes(b"")
    write_copy(open_dataset(f"folder:{tmp_path / 'in'}", val_fraction=0.5), tmp_path / "in",
               tmp_path / "second", CopySettings(32, shard_bytes=1), keep_bad=True)
    copy = open_dataset(f"records:{tmp_path / 'second'}")
    assert copy.train.image_shape == copy.eval.image_shape == (32, 48, 3)


@pytest.mark.parametrize("kind", ["wds", "imagenet"])
def test_tar_files_are_copied_without_being_extracted(shards, imagenet_files, tmp_path, kind):
    original = open_dataset(f"{kind}:{shards if kind == 'wds' else imagenet_files}")
    folder = write_copy(original, tmp_path, tmp_path / "copy", CopySettings(4096))
    copy = open_dataset(f"records:{folder}")
    assert copy.class_names == original.class_names
    for a, b in ((original.train, copy.train), (original.eval, copy.eval)):
        assert [e[:2] for e in everything(a)] == [e[:2] for e in everything(b)]
    assert str(tmp_path) not in copy.train.source.encoded(0)[2].partition("(")[2]


def test_a_copy_that_is_there_is_left_alone(image_folder, copied):
    before = {path: path.stat().st_mtime_ns for path in copied.iterdir()}
    lines = []
    write_copy(open_dataset(f"folder:{image_folder}"), image_folder, copied, SETTINGS,
               log=lines.append)
    assert "prepared already" in lines[0]
    assert {path: path.stat().st_mtime_ns for path in copied.iterdir()} == before
    with pytest.raises(UserError, match="holds another copy"):
        write_copy(open_dataset(f"folder:{image_folder}"), image_folder, copied, CopySettings(32))
    (image_folder / "train/cat/0.png").unlink()
    with pytest.raises(UserError, match="holds another copy"):
        write_copy(open_dataset(f"folder:{image_folder}"), image_folder, copied, SETTINGS)


def test_other_folders_are_not_written_to(image_folder, tmp_path):
    dataset = open_dataset(f"folder:{image_folder}")
    for name in ("photo.jpg", "train-00000.array_record"):
        folder = tmp_path / f"with {name}"
        folder.mkdir()
        (folder / name).write_bytes(b"mine")
        with pytest.raises(UserError, match=f"is not empty .*{name}"):
            write_copy(dataset, image_folder, folder, SETTINGS)
        assert (folder / name).read_bytes() == b"mine"


def stopped_after(monkeypatch, files):
    """Makes the copy end after so many files, in the middle of the next."""
    real = resized_copy.write_array_record
    left = [files]

    def write(path, contents, **options):
        if not left[0]:
            path.with_name(path.name + ".new").write_bytes(b"half")
            raise KeyboardInterrupt
        left[0] -= 1
        return real(path, contents, **options)

    monkeypatch.setattr(resized_copy, "write_array_record", write)


@pytest.mark.parametrize("files", [0, 1, 3, 6])
def test_what_is_interrupted_goes_on_and_equals_the_uninterrupted(
        image_folder, copied, tmp_path, monkeypatch, files):
    dataset, folder = open_dataset(f"folder:{image_folder}"), tmp_path / "second"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_after(patch, files)
        write_copy(dataset, image_folder, folder, SETTINGS)
    with pytest.raises(UserError, match="is not finished.*go on.*--job=prepare"):
        open_dataset(f"records:{folder}")
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.array_record")}
    assert len(kept) == files
    lines = []
    write_copy(dataset, image_folder, folder, SETTINGS, log=lines.append)
    assert any("going on" in line for line in lines) == bool(files)
    assert all(path.stat().st_mtime_ns == kept[path] for path in kept)
    for path in copied.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert len(list(folder.iterdir())) == len(list(copied.iterdir()))


@pytest.mark.parametrize("harm", ["missing", "cut", "settings", "state", "half"])
def test_a_beginning_that_is_damaged_or_another_is_not_trusted(
        image_folder, copied, tmp_path, monkeypatch, harm):
    dataset, folder = open_dataset(f"folder:{image_folder}"), tmp_path / "second"
    settings = CopySettings(16) if harm == "settings" else SETTINGS
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_after(patch, 0 if harm == "settings" else 3)
        write_copy(dataset, image_folder, folder, settings)
    second = folder / "train-00001.array_record"
    if harm == "missing":
        second.unlink()
    if harm == "cut":
        second.write_bytes(second.read_bytes()[:-100])
    if harm == "half":  # The last file of all, not yet under its name.
        for name in (records.ABOUT, resized_copy.UNFINISHED):
            (folder / f"{name}.0123abcd.new").write_text("{")
    if harm == "state":
        (folder / resized_copy.UNFINISHED).write_text("{")
        with pytest.raises(UserError, match="not a copy that was begun"):
            write_copy(dataset, image_folder, folder, SETTINGS)
        return
    write_copy(dataset, image_folder, folder, SETTINGS)
    for path in copied.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert len(list(folder.iterdir())) == len(list(copied.iterdir()))


def test_two_do_not_write_at_once(image_folder, tmp_path):
    dataset = open_dataset(f"folder:{image_folder}")
    (tmp_path / "copy").mkdir()
    lock = alone(tmp_path / "copy" / ".lock", "")
    with lock, pytest.raises(UserError, match="Another process is writing .*copy"):
        write_copy(dataset, image_folder, tmp_path / "copy", SETTINGS)
    write_copy(dataset, image_folder, tmp_path / "copy", SETTINGS)


def test_a_damaged_photo_is_named_and_the_copy_goes_on_when_it_is_mended(image_folder, tmp_path):
    path = image_folder / "train/dog/3.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes(len(whole) - 60))
    dataset = open_dataset(f"folder:{image_folder}")
    with pytest.raises(UserError, match="train/dog/3.png is "):
        write_copy(dataset, image_folder, tmp_path / "copy", SETTINGS)
    path.write_bytes(whole)
    write_copy(dataset, image_folder, tmp_path / "copy", SETTINGS)
    assert len(open_dataset(f"records:{tmp_path / 'copy'}").train) == 20


def test_bad_images_may_be_copied_as_they_are(image_folder, tmp_path):
    names = ("train/dog/3.png", "train/dog/4.png", "val/cat/0.png")
    for name, content in zip(names, (b"broken", b"", b"no image"), strict=True):
        (image_folder / name).write_bytes(content)
    dataset, folder, lines = open_dataset(f"folder:{image_folder}"), tmp_path / "copy", []
    (image_folder / names[1]).unlink()
    with pytest.raises(UserError, match="train/dog/3.png is a text file.*on_error=skip"):
        write_copy(dataset, image_folder, folder, SETTINGS, threads=1)
    write_copy(dataset, image_folder, folder, SETTINGS, keep_bad=True, log=lines.append)
    for name, reason in zip(names, ("is a text file", "cannot be read", "is a text"), strict=True):
        assert [f"{image_folder / name} {reason}" in line and "is copied as it is" in line
                for line in lines].count(True) == 1
    assert "going on" in lines[0] and "train: 20 images, 4 of them made smaller" in lines[-2]
    assert "2 unreadable" in lines[-2] and "1 unreadable" in lines[-1]
    copy = open_dataset(f"records:{folder}")
    found = everything(copy.train)
    assert len(found) == 20 and [e[1] for e in found] == [0] * 10 + [1] * 10
    assert (found[13][0], found[14][0]) == (b"broken", b"")
    with pytest.raises(UserError, match=r"train/dog/3.png\) is a text file"):
        copy.train.source[13]
    assert [len(open_dataset(f"records:{folder}").eval), everything(copy.eval)[0][0]] == [
        8, b"no image"]


def test_a_name_that_is_not_utf8_is_kept(image_folder, tmp_path):
    (image_folder / "train/cat/0.png").rename(
        image_folder / "train/cat" / os.fsdecode(b"0\xe9.png"))
    folder = write_copy(open_dataset(f"folder:{image_folder}"), image_folder, tmp_path / "copy",
                        SETTINGS)
    names = [e[2] for e in everything(open_dataset(f"records:{folder}").train)]
    assert sum(name.endswith("(train/cat/0\N{REPLACEMENT CHARACTER}.png)") for name in names) == 1


def test_a_folder_that_cannot_be_written_is_explained(image_folder, tmp_path, monkeypatch):
    dataset = open_dataset(f"folder:{image_folder}")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written .*--config.prepare.output"):
        write_copy(dataset, image_folder, tmp_path / "file" / "copy", SETTINGS)

    def full(path, contents, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resized_copy, "write_array_record", full)
    with pytest.raises(UserError, match="No space left on device.*make room"):
        write_copy(dataset, image_folder, tmp_path / "copy", SETTINGS)


def test_a_copy_of_a_part_is_not_gone_on_with_for_another(shards, tmp_path, monkeypatch):
    def dataset(seed):
        return open_dataset(f"wds:{shards}", train_split="train[:50%]", eval_split="train[50%:]",
                            split_seed=seed)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_after(patch, 2)
        write_copy(dataset(0), shards, tmp_path / "copy", CopySettings(8, shard_bytes=1))
    write_copy(dataset(1), shards, tmp_path / "copy", CopySettings(8, shard_bytes=1))
    copy = open_dataset(f"records:{tmp_path / 'copy'}")
    names = [{e[2].split("(")[1] for e in everything(split)} for split in (copy.train, copy.eval)]
    assert [len(n) for n in names] == [6, 6] and not names[0] & names[1]
    with pytest.raises(UserError, match="another copy"):
        write_copy(dataset(0), shards, tmp_path / "copy", CopySettings(8, shard_bytes=1))
    assert not (tmp_path / "copy/.lock").exists()
    seeds = [open_dataset(f"records:{tmp_path / 'copy'}", train_split="train[:30%]",
                          split_seed=seed).fingerprint for seed in (1, 2)]
    assert seeds[0] != seeds[1]


def test_parts_of_a_copy(copied):
    dataset = open_dataset(f"records:{copied}", train_split="train[:50%]",
                           eval_split="train[50%:]")
    both = [set(e[2] for e in everything(split)) for split in (dataset.train, dataset.eval)]
    assert [len(names) for names in both] == [10, 10] and not both[0] & both[1]
    assert dataset.train.source.num_bytes is None
    with pytest.raises(UserError, match="no split 'test'. There are: train, val"):
        open_dataset(f"records:{copied}", eval_split="test")


def test_the_names_of_what_was_copied_mean_all_of_it(image_folder, tmp_path):
    parts = dict(train_split="train[:75%]", eval_split="train[75%:]")
    copy = write_copy(open_dataset(f"folder:{image_folder}", **parts), image_folder,
                      tmp_path / "parts", SETTINGS, log=lambda line: None)
    plain, same = open_dataset(f"records:{copy}"), open_dataset(f"records:{copy}", **parts)
    assert (len(plain.train), len(plain.eval)) == (len(same.train), len(same.eval)) == (15, 5)
    assert same.fingerprint == plain.fingerprint
    assert len(open_dataset(f"records:{copy}", train_split="train[:3]").train) == 3


def test_names_of_the_original_that_are_others_here_are_not_mistaken(image_folder, tmp_path):
    asked = dict(train_split="val", eval_split="train")
    original = open_dataset(f"folder:{image_folder}", **asked)
    path = write_copy(original, image_folder, tmp_path / "turned", SETTINGS, log=lambda line: None)
    turned = open_dataset(f"records:{path}", **asked)
    for a, b in ((original.train, turned.train), (original.eval, turned.eval)):
        assert [b.name_of(i) for i in range(len(b))] == [
            os.path.relpath(a.name_of(i), image_folder) for i in range(len(a))]
    for one in ({"train_split": "val"}, {"train_split": "train", "eval_split": "val"}):
        with pytest.raises(UserError, match="is a split of the copy, and was that of the original"):
            open_dataset(f"records:{path}", **one)


def test_examples_are_called_by_the_names_of_the_originals(image_folder, copied):
    original, copy = (open_dataset(name).eval for name in (
        f"folder:{image_folder}", f"records:{copied}"))
    names = [os.path.relpath(original.name_of(i), image_folder) for i in range(len(original))]
    assert [copy.name_of(i) for i in range(len(copy))] == names


def test_the_fingerprint_is_of_the_images_not_of_the_place(image_folder, copied, tmp_path):
    first = open_dataset(f"records:{copied}").fingerprint
    assert open_dataset(f"records:{copied.rename(tmp_path / 'moved')}").fingerprint == first
    again = write_copy(open_dataset(f"folder:{image_folder.rename(tmp_path / 'photos')}"),
                       tmp_path / "photos", tmp_path / "again", SETTINGS)
    assert open_dataset(f"records:{again}").fingerprint == first


@pytest.mark.parametrize(("change", "message"), [
    (lambda f: (f / "train-00001.array_record").unlink(), "train-00001.* cannot be read"),
    (lambda f: os.truncate(f / "train-00001.array_record", 70_000), "70,000 bytes, but .* were w"),
    (lambda f: os.truncate(f / "val-00000.array_record", 0), "val-00000.* has 0 bytes"),
    (lambda f: (f / "dataset.json").write_text("{"), "dataset.json is damaged"),
    (lambda f: (f / "dataset.json").write_text("[]"), "dataset.json is damaged"),
    (lambda f: (f / "dataset.json").unlink(), "is not finished: it has no dataset.json"),
    (lambda f: shutil.rmtree(f), "is not there.*Did you mean 'copy2'"),
    (lambda f: (f / "dataset.json").write_text((f / "dataset.json").read_text().replace(
        "train-00001", "../x/train-00001")), "'../x/train-00001.array_record', which is not in"),
    (lambda f: (f / "dataset.json").write_text((f / "dataset.json").read_text().replace(
        '"format": 1', '"format": 2')), "its format is 2, not 1"),
])
def test_a_copy_that_is_not_whole_is_explained(copied, change, message):
    (copied.parent / "copy2").mkdir()
    change(copied)
    with pytest.raises(UserError, match=message):
        open_dataset(f"records:{copied}")


def test_a_flipped_bit_is_found_and_the_record_named(copied):
    path = copied / "train-00001.array_record"
    source = open_dataset(f"records:{copied}").train.source
    number = next(i for i in range(20) if path.name in source.encoded(i)[2])
    data, whole = source.encoded(number)[0], bytearray(path.read_bytes())
    whole[bytes(whole).index(data) + len(data) // 2] ^= 1
    path.write_bytes(whole)
    damaged = open_dataset(f"records:{copied}").train.source
    with pytest.raises(UserError, match=r"train-00001.array_record, record \d+ is damaged"):
        damaged[number]
    damaged[0]


def test_a_fault_that_does_not_lie_in_a_file_is_not_taken_for_damage(copied):
    open_dataset(f"records:{copied}").train.source[0]  # Imports, which open files, too.
    source, (soft, hard) = open_dataset(f"records:{copied}").train.source, resource.getrlimit(
        resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(UserError, match="record 0 .*Too many open.*ulimit -n") as error:
            source[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not isinstance(error.value, BadExample)


@pytest.mark.parametrize(("said", "message"), [
    ("open() failed: Permission denied; opening a", "cannot be read .*make the file readable"),
    ("open() failed: No such file or directory; opening a", "or not there .*: make the copy anew"),
    ("Corrupted Riegeli/records file", "is damaged .*: make the copy anew"),
])
def test_a_file_that_may_not_be_read_need_not_be_made_anew(said, message):
    error = unread("a, record 7", RuntimeError(said), "make the copy anew")
    assert isinstance(error, BadExample) and re.match(f"a, record 7 .*{message}", str(error))


def test_a_description_that_cannot_be_read_is_not_called_damaged(copied, monkeypatch):
    def denied(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(UserError, match="/dataset.json cannot be read: Permission denied.$"):
        open_dataset(f"records:{copied}")


def test_a_source_can_be_sent_to_another_process(copied):
    source = open_dataset(f"records:{copied}", train_split="train[3:]").train.source
    sent = pickle.loads(pickle.dumps(source))
    assert [sent.encoded(i) for i in range(17)] == [source.encoded(i) for i in range(17)]


KILLED = """
import sys, time
from cnnjax.data import CopySettings, open_dataset, resized_copy, write_copy
real = resized_copy.write_array_record
def slowly(path, contents, **options):
    size = real(path, contents, **options)
    print("wrote", path.name, flush=True)
    time.sleep(0.3)
    return size
resized_copy.write_array_record = slowly
write_copy(open_dataset("folder:" + sys.argv[1]), sys.argv[1], sys.argv[2],
           CopySettings(short_side=24, quality=95, shard_bytes=8000), log=lambda line: None)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_what_another_goes_on_with(image_folder, copied, tmp_path, root):
    folder = tmp_path / "second"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(image_folder), str(folder)],
                               cwd=root, stdout=subprocess.PIPE, text=True)
    for _ in range(2):
        process.stdout.readline()
    time.sleep(0.1)
    process.kill()
    process.wait()
    kept = len(list(folder.glob("*.array_record")))
    assert kept >= 2 and not (folder / records.ABOUT).exists()
    lines = []
    write_copy(open_dataset(f"folder:{image_folder}"), image_folder, folder, SETTINGS,
               log=lines.append)
    assert "going on" in lines[0]
    for path in copied.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
