import bz2
import codecs
import errno
import io
import json
import os
import pickle
import shutil
import subprocess
import tarfile

import numpy as np
import pytest

from cnnjax import files
from cnnjax.data import open_dataset, tar_index
from cnnjax.data.webdataset import expand_braces, scan_shard
from cnnjax.types import UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The cache of this test alone."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def labels(split):
    return [split.source[i][1] for i in range(len(split))]


def contents(split):
    return [split.source.encoded(i)[0] for i in range(len(split))]


def test_a_folder_of_shards_with_the_split_in_their_names(shards, encode):
    dataset = open_dataset(f"wds:{shards}")
    assert (len(dataset.train), len(dataset.eval)) == (12, 4)
    assert (dataset.train.name, dataset.eval.name) == ("train", "val")
    assert dataset.class_names == ("0", "1", "2") and dataset.train.image_shape is None
    assert labels(dataset.train) == [i % 3 for i in range(12)]
    assert contents(dataset.train) == [encode(20 + i, 40 - i, i) for i in range(12)]
    assert dataset.train.source.num_bytes == sum(map(len, contents(dataset.train)))
    assert dataset.train.source[7][0].shape == (27, 33, 3)
    assert dataset.train.source.encoded(7)[2] == f"{shards}/train-0001.tar: 0007.jpg"


def test_a_folder_for_each_split_and_class_names(shards):
    for split in ("train", "val"):
        (shards / split).mkdir()
        for path in shards.glob(f"{split}-*.tar"):
            path.rename(shards / split / path.name.removeprefix("train-"))
    (shards / "classes.txt").write_text("ant\nbee\ncat\n\n")
    dataset = open_dataset(f"wds:{shards}")
    assert (len(dataset.train), len(dataset.eval)) == (12, 4)
    assert dataset.class_names == ("ant", "bee", "cat")
    (shards / "classes.txt").rename(shards / "classes.json")
    (shards / "classes.json").write_text('["ant", "bee"]')
    with pytest.raises(UserError, match="label of example 2 is 2, but there are 2 classes"):
        open_dataset(f"wds:{shards}")
    (shards / "classes.json").write_text('{"ant": 0}')
    with pytest.raises(UserError, match="names of two classes or more"):
        open_dataset(f"wds:{shards}")


@pytest.mark.parametrize("text", ["ant\r\nbee\r\ncat\r\n", '["ant", "bee", "cat"]'])
def test_class_names_that_an_editor_has_marked_as_utf8_have_no_mark(shards, text):
    (shards / f"classes.{'json' if text[0] == '[' else 'txt'}").write_bytes(
        codecs.BOM_UTF8 + text.encode())
    assert open_dataset(f"wds:{shards}").class_names == ("ant", "bee", "cat")


@pytest.mark.parametrize(("path", "train", "evaluation", "sizes"), [
    ("train-{0000..0001}.tar", None, None, (12, 4)),
    ("train-*.tar", None, None, (12, 4)),
    ("train-{0000,0001}.tar", None, "train-0001.tar", (12, 6)),
    ("train-0000.tar", None, "val-{0000..0000}.tar", (6, 4)),
    ("", "train-000?.tar[:50%]", "val-*.tar", (6, 4)),
    ("", "train[:50%]", "train[50%:]", (6, 6)),
    ("*.tar", None, "val-0000.tar", (16, 4)),
    ("*.tar", None, None, (12, 4)),  # Divided.
])
def test_patterns_and_parts(shards, path, train, evaluation, sizes):
    dataset = open_dataset(f"wds:{shards}/{path}", train_split=train, eval_split=evaluation,
                           val_fraction=0.25)
    assert (len(dataset.train), len(dataset.eval)) == sizes
    assert set(labels(dataset.train)) == {0, 1, 2}
    if sizes == (12, 4):
        assert not set(contents(dataset.train)) & set(contents(dataset.eval))


@pytest.mark.parametrize("folder", ["run[1]", "{a,b}", "what?", "*"])
def test_a_folder_may_have_the_name_of_a_pattern(shards, folder):
    shards = shards.rename(shards.with_name(folder))
    for name in ("train-*.tar", "train-{0000..0001}.tar", "train-000?.tar"):
        dataset = open_dataset(f"wds:{shards}/{name}")
        assert (len(dataset.train), len(dataset.eval)) == (12, 4)


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash to compare with")
@pytest.mark.parametrize("pattern", ["a{0..3}b", "{000..012}.tar", "{08..11}", "{3..1}", "{a,b,}x",
                                     "x{0..1}-{a,b}y", "none", "{1,2}{3..4}"])
def test_braces_are_those_of_bash(pattern):
    found = subprocess.run(["bash", "-c", f"printf '%s\\n' {pattern}"], capture_output=True,
                           text=True, check=True).stdout
    assert expand_braces(pattern) == found.splitlines()


def test_evaluation_images_are_not_silently_those_to_train_on(shards):
    for names in (["train-0000.tar", "train-0001.tar", "val-0000.tar"], ["val-0000.tar"]):
        for path in shards.glob("*.tar"):
            if path.name not in names:
                path.unlink()
        with pytest.raises(UserError, match=r"nothing is left to evaluate on.*val\[80%:\]"):
            open_dataset(f"wds:{shards}", train_split="val")
        dataset = open_dataset(f"wds:{shards}", train_split="val[:50%]", eval_split="val[50%:]")
        assert not set(contents(dataset.train)) & set(contents(dataset.eval))


def test_what_the_library_writes_is_read_as_the_library_reads_it(tmp_path, encode):
    wds = pytest.importorskip("webdataset")
    folder = tmp_path / "written"
    folder.mkdir()
    with wds.ShardWriter(str(folder / "train-%04d.tar"), maxcount=5, verbose=0) as writer:
        for i in range(13):
            writer.write({"__key__": f"deep/folder/{i:05d}", "jpg": encode(9 + i, 9, i),
                          "json": {"label": i % 2, "text": "x" * i}, "txt": "a photo"})
    names = sorted(map(str, folder.glob("*.tar")))
    expected = [(sample["jpg"], json.loads(sample["json"])["label"])
                for sample in wds.WebDataset(names, shardshuffle=False)]
    source = open_dataset(f"wds:{folder}", eval_split="train[:5]").train.source
    assert [source.encoded(i)[:2] for i in range(13)] == expected and len(names) == 3


@pytest.mark.parametrize(("name", "value"), [
    ("json", b'{"cls": 1}'), ("json", b'{"class_id": 1}'), ("json", b'{"label": "bee"}'),
    ("cls", b" 1\n"), ("CLS", b"1")])
def test_where_the_class_may_stand(write_tar, encode, name, value):
    path = write_tar("x/train.tar", {"a.jpg": encode(5, 5), "a." + name: value})
    assert scan_shard(str(path), ("ant", "bee")).labels.tolist() == [1]


@pytest.mark.parametrize(("change", "message"), [
    ({"a.cls": None}, "example 'a' has no class .its files: jpg.*a.cls with the number"),
    ({"a.cls": None, "a.json": b'{"size": 3}'}, "example 'a' has no class"),
    ({"a.cls": None, "a.json": b"{"}, "a.json is not JSON"),
    ({"a.cls": None, "a.json": b'{"label": "bea"}'}, "the class 'bea'.*Did you mean 'bee'"),
    ({"a.cls": None, "a.json": b'{"label": true}'}, "the class True"),
    ({"a.cls": b"cat"}, "a.cls holds 'cat'; it takes the number"),
    ({"a.cls": b"--1"}, "a.cls holds '--1'"),
    ({"a.cls": b"9" * 9999}, "a.cls holds '999"),
    ({"a.cls": None, "a.json": b"[" * 99999}, "a.json is not JSON"),
    ({"a.cls": b"99999999999"}, "has the label 99999999999"),
    ({"a.cls": b"\xff"}, "not text in UTF-8"),
    ({"a.jpg": None, "a.gif": b"GIF"}, "'a' has no image .its files: cls, gif.*.webp"),
    ({"a.png": b"x"}, "'a' has several images, jpg, png"),
    ({"../b.jpg": b"x"}, r"'../b.jpg' points outside"),
    ({"/etc/b.jpg": b"x"}, "'/etc/b.jpg' points outside"),
    ({"x/../../b.cls": b"x"}, "points outside"),
    ({"b.jpg": tarfile.SYMTYPE}, "'b.jpg' is a link"),
    ({"b.jpg": tarfile.LNKTYPE}, "'b.jpg' is a link"),
    ({"b.jpg": tarfile.FIFOTYPE}, "'b.jpg' is a link, a device"),
    ({"a.jpg": None, "a.cls": None}, "holds no images"),
])
def test_what_is_wrong_in_a_shard_is_named(write_tar, encode, change, message):
    members = {"a.jpg": encode(5, 5), "a.cls": b"1"} | change
    for name, value in members.items():
        if isinstance(value, bytes) and len(value) == 1 and value.isdigit() and name != "a.cls":
            members[name] = tarfile.TarInfo(name)
            members[name].type, members[name].linkname = value, "/etc/passwd"
    path = write_tar("x/train.tar", {k: v for k, v in members.items() if v is not None})
    with pytest.raises(UserError, match=message) as error:
        scan_shard(str(path), ("ant", "bee"))
    assert str(path) in str(error.value)


@pytest.mark.parametrize(("label", "message"), [
    (b"-1", "the label of example . is -1, but there are 2 classes"),
    (b"2000000000", "the largest label is 2000000000, but there are only 6 examples")])
def test_a_class_of_an_impossible_number_is_named(write_tar, encode, label, message):
    path = write_tar("x/train.tar", {f"{i}.{ext}": value for i in range(6) for ext, value in (
        ("jpg", encode(5, 5)), ("cls", label if i == 3 else b"%d" % (i % 2)))})
    with pytest.raises(UserError, match=message):
        open_dataset(f"wds:{path.parent}")


@pytest.mark.parametrize("first", ["jpg", "cls"])
def test_files_of_an_example_that_lie_apart_are_explained(write_tar, encode, first):
    files = {f"{i}.{ext}": content for i in range(3)
             for ext, content in (("jpg", encode(5, 5)), ("cls", b"%d" % (i % 2)))}
    apart = dict(sorted(files.items(), key=lambda file: not file[0].endswith(first)))
    path = write_tar("x/train.tar", apart)
    with pytest.raises(UserError, match="example '0' has no .* side by side .*tar --sort=name"):
        open_dataset(f"wds:{path.parent}")


def test_folders_and_hidden_files_are_passed_over(write_tar, encode):
    folder = tarfile.TarInfo("deep")
    folder.type = tarfile.DIRTYPE
    path = write_tar("x/train.tar", {"deep": folder, "deep/._a.jpg": b"x", "./deep/a.jpg":
                                     encode(5, 6), "./deep/a.cls": b"0", "deep/b.webp":
                                     encode(5, 6, 0, ".webp"), "deep/b.cls": b"1"})
    shard = scan_shard(str(path))
    assert shard.labels.tolist() == [0, 1] and shard.shape == (5, 6)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.5, 0.8, 0.97])
def test_a_shard_that_was_cut_short_is_named(shards, share):
    path = shards / "train-0001.tar"
    whole = path.read_bytes()
    end = whole.rindex(b"0011.cls") + 1024  # What follows is zeros that make it whole.
    path.write_bytes(whole[:int(end * share)])
    with pytest.raises(UserError, match="train-0001.tar (is not a tar|is compressed)"):
        open_dataset(f"wds:{shards}")


def test_a_shard_that_was_cut_between_two_members_is_named(shards):
    path = shards / "train-0001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:whole.index(b"0008.jpg")])
    with pytest.raises(UserError, match="train-0001.tar .*cut short"):
        open_dataset(f"wds:{shards}")


def test_a_damaged_header_is_named_and_no_end(shards):
    path = shards / "train-0000.tar"
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"0003.jpg") + 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="train-0000.tar is not a tar file, is damaged"):
        open_dataset(f"wds:{shards}")


def test_any_damaged_byte_of_the_headers_is_a_message_or_changes_nothing_that_is_read(shards):
    path = shards / "train-0000.tar"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    good = scan_shard(str(path))
    headers = [int(start) - 512 for start in good.offsets]
    said = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[rng.choice(headers) + rng.integers(512)] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            found = scan_shard(str(path))
        except UserError as error:
            assert "train-0000.tar" in str(error)
            said += 1
        else:
            assert (found.offsets == good.offsets).all() and (found.labels == good.labels).all()
    assert said > 200


@pytest.mark.parametrize(("size", "kind"), [(-2048, b"0"), (10_240, b"0"), (2**62, b"0"),
                                            (2**62, b"L")])
@pytest.mark.parametrize("name", ["a.jpg", "b.jpg"])
def test_a_member_of_an_impossible_size_ends_in_a_message(
        write_tar, encode, claim_size, name, size, kind):
    path = write_tar("x/train.tar", {"a.jpg": encode(5, 5), "a.cls": b"0", "b.jpg": b"x"})
    claim_size(path, name, size, kind)
    with pytest.raises(UserError, match="train.tar is not a tar file, is damaged"):
        scan_shard(str(path))


def test_compressed_shards_are_explained(shards):
    subprocess.run(["gzip", shards / "train-0000.tar"], check=True)
    (shards / "train-0000.tar.gz").rename(shards / "train-0000.tar")
    with pytest.raises(UserError, match="is compressed.*gunzip"):
        open_dataset(f"wds:{shards}")
    (shards / "train-0000.tar").write_bytes(bz2.compress(b"x" * 5000))
    with pytest.raises(UserError, match="is compressed.*bunzip2"):
        open_dataset(f"wds:{shards}")


@pytest.mark.parametrize("name", ["BZ", "BZh9"])
def test_a_name_like_the_beginning_of_a_compressed_file_is_none(write_tar, encode, name):
    path = write_tar("x/train.tar", {f"{name}.jpg": encode(5, 5), f"{name}.cls": b"1"})
    assert scan_shard(str(path)).labels.tolist() == [1]


@pytest.mark.parametrize(("path", "message"), [
    ("shardz", "no folder .*shardz.*Did you mean 'shards'"),
    ("shards/train-{0000..0003}.tar", "4 tar files or patterns, of which 2 are not there"),
    ("shards/training-*.tar", "of which 1 are not there.*train-0000.tar"),
    ("shards/{0..99999999999}.tar", "more files than there can be"),
    ("empty", "no tar files"),
    ("https://x/train-{0..9}.tar", "needs files on this machine"),
    ("", "names no path"),
])
def test_shards_that_are_not_there_are_explained(shards, path, message):
    (shards.parent / "empty").mkdir()
    name = f"wds:{shards.parent / path}" if path and "://" not in path else f"wds:{path}"
    with pytest.raises(UserError, match=message):
        open_dataset(name)


def test_an_image_that_is_none_is_named_by_shard_and_member(write_tar, encode):
    path = write_tar("x/train.tar", {"a.jpg": encode(5, 5), "a.cls": b"0", "b.jpg": b"no image",
                                     "b.cls": b"1", "c.jpg": encode(5, 5), "c.cls": b"1"})
    dataset = open_dataset(f"wds:{path.parent}", eval_split="train[:1]")
    with pytest.raises(UserError, match="train.tar: b.jpg is .*an image"):
        dataset.train.source[1]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_names_that_are_not_ascii_are_whole(tmp_path, encode, form):
    names = ["b", "Ameise–Ämse", "a" * 120, "ü" * 90, f"{'folder/' * 30}x", "c"]
    with tarfile.open(tmp_path / "train.tar", "w", format=form) as archive:
        for i, name in enumerate(names):
            for ext, content in (("cls", b"%d" % (i % 2)), ("jpg", encode(5, 5))):
                member = tarfile.TarInfo(f"{name}.{ext}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    source = open_dataset(f"wds:{tmp_path}", eval_split="train[:50%]").train.source
    assert [source.name(i).partition(": ")[2] for i in range(6)] == [f"{n}.jpg" for n in names]


def test_images_of_one_size_are_noticed(write_tar, encode):
    photos = {f"{i}.{ext}": value for i in range(8)
              for ext, value in (("jpg", encode(12, 10, i)), ("cls", b"%d" % (i % 2)))}
    path = write_tar("x/train.tar", photos)
    assert open_dataset(f"wds:{path.parent}").train.image_shape == (12, 10, 3)
    write_tar("x/train-2.tar", photos | {"9.jpg": encode(12, 11), "9.cls": b"0"})
    assert open_dataset(f"wds:{path.parent}").train.image_shape is None


@pytest.mark.parametrize(("names", "says"), [
    (("train-0", "testing-0"), "besides train: .*eval_split=testing"),
    (("Train-0", "dev-0"), "besides train: .*eval_split=dev"),
    (("train-0", "more-0", "others"), "more-0.tar and 1 more tar files .* say no split"),
])
def test_shards_to_test_on_are_not_trained_on(write_tar, encode, names, says):
    photos = {f"{i}.{ext}": value for i in range(4)
              for ext, value in (("jpg", encode(12, 10, i)), ("cls", b"%d" % (i % 2)))}
    for name in names:
        path = write_tar(f"x/{name}.tar", photos)
    with pytest.raises(UserError, match=says):
        open_dataset(f"wds:{path.parent}")
    named = open_dataset(f"wds:{path.parent}/{names[0]}.tar", eval_split=f"{names[1]}.tar")
    assert (len(named.train), len(named.eval)) == (4, 4)


def test_shards_beside_the_folders_of_the_splits_are_not_passed_over(shards):
    (shards / "train").mkdir()
    (shards / "train-0000.tar").rename(shards / "train/0000.tar")
    with pytest.raises(UserError, match="tar files in train/ and others beside, such as .*[.]tar"):
        open_dataset(f"wds:{shards}")


@pytest.mark.parametrize("state", ["empty", "a link to nothing"])
@pytest.mark.parametrize("asked", [None, "val"])
def test_a_split_to_evaluate_on_that_cannot_be_used_is_not_silently_another(shards, state, asked):
    (shards / "train").mkdir()
    for path in list(shards.glob("*.tar")):
        path.rename(shards / "train" / path.name)
    if state == "empty":
        (shards / "val").mkdir()
    else:
        (shards / "val").symlink_to("nowhere")
    with pytest.raises(UserError, match="/val holds no split to evaluate on: .*tar files"):
        open_dataset(f"wds:{shards}", eval_split=asked)


def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(shards, monkeypatch):
    (shards / "train").mkdir()
    (shards / "train-0000.tar").rename(shards / "train/0000.tar")
    (shards / "val").mkdir()
    for name in ("listdir", "scandir"):
        allowed = getattr(os, name)

        def read(path=".", allowed=allowed):
            if os.fspath(path).endswith("val"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return allowed(path)

        monkeypatch.setattr(os, name, read)
    with pytest.raises(PermissionError, match="/val"):
        open_dataset(f"wds:{shards}")


def test_capital_letters_in_the_names_of_shards(write_tar, encode):
    photos = {f"{i}.{ext}": value for i in range(4)
              for ext, value in (("jpg", encode(12, 10, i)), ("cls", b"%d" % (i % 2)))}
    write_tar("x/TRAIN_0.tar", photos)
    path = write_tar("x/Test_0.tar", photos)
    dataset = open_dataset(f"wds:{path.parent}")
    assert (dataset.train.name, dataset.eval.name) == ("train", "test") and len(dataset.train) == 4


@pytest.mark.parametrize(("names", "sizes"), [
    (("dev-train-0", "dev-val-0"), (4, 4)), (("flowers-dev-0", "flowers-dev-1"), (6, 2))])
def test_a_word_may_be_a_part_of_the_data_sets_name(write_tar, encode, names, sizes):
    photos = {f"{i}.{ext}": value for i in range(4)
              for ext, value in (("jpg", encode(12, 10, i)), ("cls", b"%d" % (i % 2)))}
    for name in names:
        path = write_tar(f"x/{name}.tar", photos)
    dataset = open_dataset(f"wds:{path.parent}")
    assert (len(dataset.train), len(dataset.eval)) == sizes


def test_classes_are_those_of_whole_splits(write_tar, encode):
    photos = {f"{i}.{ext}": value for i in range(30)
              for ext, value in (("jpg", encode(12, 10, i)), ("cls", b"%d" % i))}
    write_tar("x/train.tar", photos)
    path = write_tar("x/val.tar", photos)
    dataset = open_dataset(f"wds:{path.parent}", train_split="train[:4]", eval_split="val[:3]")
    assert dataset.num_classes == 30 and (len(dataset.train), len(dataset.eval)) == (4, 3)


def test_the_index_is_kept_beside_the_shards_and_made_anew_for_what_changed(
        shards, write_tar, encode, monkeypatch, home):
    first = open_dataset(f"wds:{shards}")
    kept = list(shards.glob(".cnnjax-index-*.npz"))
    assert len(kept) == 2 and not home.exists()
    seen = []
    real = scan_shard
    monkeypatch.setattr("cnnjax.data.webdataset.scan_shard",
                        lambda path, **kw: seen.append(os.path.basename(path)) or real(path, **kw))
    again = open_dataset(f"wds:{shards}")
    assert seen == [] and again.fingerprint == first.fingerprint
    assert contents(again.train) == contents(first.train)
    moved = shards.rename(shards.with_name("moved"))
    assert open_dataset(f"wds:{moved}").fingerprint == first.fingerprint and seen == []
    write_tar("moved/train-0001.tar", {"a.jpg": encode(5, 5), "a.cls": b"2"})
    changed = open_dataset(f"wds:{moved}")
    assert seen == ["train-0001.tar"] and len(changed.train) == 7
    assert changed.fingerprint != first.fingerprint
    for path in moved.glob(".cnnjax-index-*.npz"):
        path.write_bytes(path.read_bytes()[:300])
    assert len(open_dataset(f"wds:{moved}").train) == 7 and len(seen) == 4


def test_an_index_that_is_damaged_in_any_way_is_made_anew(shards):
    first = open_dataset(f"wds:{shards}")
    for path in shards.glob(".cnnjax-index-*.npz"):
        damaged = bytearray(path.read_bytes())
        for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            damaged[damaged.index(magic) + flags] |= 1  # As if it were encrypted.
        path.write_bytes(damaged)
    assert contents(open_dataset(f"wds:{shards}").train) == contents(first.train)


@pytest.fixture
def read_only(shards, monkeypatch):
    """Makes the folder of the shards one in which no index can be written."""
    real = files.write_whole

    def write_whole(path, content):
        if path.parent == shards:
            raise PermissionError("Read-only file system")
        real(path, content)

    return lambda: monkeypatch.setattr(files, "write_whole", write_whole)


def test_where_nothing_can_be_written_the_index_is_in_the_cache(
        shards, home, read_only, monkeypatch):
    read_only()
    first = open_dataset(f"wds:{shards}")
    assert not list(shards.glob(".cnnjax*"))
    assert len(list((home / ".cache/cnnjax/index").iterdir())) == 2
    monkeypatch.setattr("cnnjax.data.webdataset.scan_shard", lambda path, **kw: 1 / 0)
    assert contents(open_dataset(f"wds:{shards}").train) == contents(first.train)


def test_a_user_without_a_home_has_the_index_beside_the_shards_or_none(
        shards, read_only, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(tar_index.Path, "home", no_home)
    first = contents(open_dataset(f"wds:{shards}").train)
    indices = list(shards.glob(".cnnjax*"))
    assert len(indices) == 2
    for index in indices:
        index.unlink()
    read_only()
    assert contents(open_dataset(f"wds:{shards}").train) == first


def test_an_index_that_is_out_of_date_and_cannot_be_written_does_not_hide_the_one_in_the_cache(
        shards, read_only, monkeypatch):
    open_dataset(f"wds:{shards}")
    os.utime(shards / "train-0000.tar", (1, 1))
    read_only()
    first = open_dataset(f"wds:{shards}")
    monkeypatch.setattr("cnnjax.data.webdataset.scan_shard", lambda path, **kw: 1 / 0)
    assert contents(open_dataset(f"wds:{shards}").train) == contents(first.train)


def test_a_shard_that_changes_while_it_is_looked_through_is_looked_through_again(
        write_tar, encode, monkeypatch):
    path = write_tar("x/train.tar", {"a.jpg": encode(5, 5), "a.cls": b"0", "b.jpg": encode(5, 5),
                                     "b.cls": b"1"})
    with monkeypatch.context() as patch:
        patch.setattr(tar_index, "image_size", lambda file: os.utime(path, (1, 1)))
        open_dataset(f"wds:{path.parent}", eval_split="train[:1]")
    seen = []
    monkeypatch.setattr("cnnjax.data.webdataset.scan_shard",
                        lambda path, **kw: seen.append(path) or scan_shard(path, **kw))
    open_dataset(f"wds:{path.parent}", eval_split="train[:1]")
    assert seen == [str(path)]


def test_a_shard_that_changes_while_it_is_read_is_named(shards):
    source = open_dataset(f"wds:{shards}").train.source
    path = shards / "train-0000.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(UserError, match="train-0000.tar has changed"):
        source[3]
    path.write_bytes(whole[512:])
    with pytest.raises(UserError, match="train-0000.tar has changed"):
        source[3]
    path.unlink()
    with pytest.raises(UserError, match="train-0000.tar cannot be read: No such file"):
        source[3]


def test_a_source_can_be_sent_to_another_process(shards):
    source = open_dataset(f"wds:{shards}").train.source
    sent = pickle.loads(pickle.dumps(source))
    for i in range(12):
        np.testing.assert_array_equal(sent[i][0], source[i][0])


def test_nothing_is_written_where_a_name_points(write_tar, encode, tmp_path):
    """Members are read, never extracted, whatever they are called."""
    before = sorted(tmp_path.rglob("*"))
    path = write_tar("x/train.tar", {"a.jpg": encode(5, 5), "a.cls": b"0",
                                     "../../evil.txt": b"x"})
    with pytest.raises(UserError, match="points outside"):
        open_dataset(f"wds:{path.parent}")
    assert set(tmp_path.rglob("*")) - set(before) == {path.parent, path}
