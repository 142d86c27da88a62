import re
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from cnnjax.data import open_dataset
from cnnjax.data.imagenet import read_validation_labels
from cnnjax.data.survey import survey
from cnnjax.types import UserError

SYNSETS = ("n01440764", "n02206856", "n02219486")


def test_the_tar_files_equal_the_folder_that_they_extract_to(imagenet_files, tmp_path):
    """Extracted by tarfile as everybody does, and sorted into folders by the development kit."""
    folder = tmp_path / "extracted"
    with tarfile.open(imagenet_files / "ILSVRC2012_img_train.tar") as outer:
        for member in outer:
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                inner.extractall(folder / "train" / member.name.removesuffix(".tar"), filter="data")
    with tarfile.open(imagenet_files / "ILSVRC2012_img_val.tar") as archive:
        archive.extractall(folder / "flat", filter="data")
    ids = {1: "n02219486", 2: "n01440764", 3: "n02206856"}
    for path, number in zip(sorted((folder / "flat").iterdir()), (1, 2, 3, 1, 1), strict=True):
        (folder / "val" / ids[number]).mkdir(parents=True, exist_ok=True)
        path.rename(folder / "val" / ids[number] / path.name)
    (folder / "flat").rmdir()
    # The images are PNG under the name of JPEG, as one of ILSVRC2012 is.
    extracted, straight = open_dataset(f"folder:{folder}"), open_dataset(
        f"imagenet:{imagenet_files}")
    assert straight.class_names == extracted.class_names == SYNSETS
    for a, b in ((extracted.train, straight.train), (extracted.eval, straight.eval)):
        def by_content(split):
            return sorted(split.source.encoded(i)[:2] for i in range(len(split)))
        assert by_content(a) == by_content(b) and len(a) in (9, 5)
        for i in range(len(b)):
            data, label, name = b.source.encoded(i)
            assert label == b.source[i][1] and name.endswith(".JPEG")
    assert straight.eval.name == "validation"
    names = [straight.eval.source.encoded(i)[2][-13:] for i in range(5)]
    assert names == [f"{i:08d}.JPEG" for i in range(1, 6)]


def test_tars_within_a_tar_may_have_a_folder_before_their_names(imagenet_files, write_tar):
    before = open_dataset(f"imagenet:{imagenet_files}")
    path = imagenet_files / "ILSVRC2012_img_train.tar"
    with tarfile.open(path) as outer:
        contents = {f"./{member.name}": outer.extractfile(member).read() for member in outer}
    write_tar(path, contents)
    after = open_dataset(f"imagenet:{imagenet_files}")
    assert after.class_names == before.class_names == SYNSETS
    assert [after.train.source[i][1] for i in range(9)] == [
        before.train.source[i][1] for i in range(9)]


def test_examples_are_called_by_their_names_in_the_tar_files(imagenet_files):
    split = open_dataset(f"imagenet:{imagenet_files}").eval
    path = imagenet_files / "ILSVRC2012_img_val.tar"
    assert [split.name_of(i) for i in range(5)] == [
        f"{path}: ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 6)]
    # PNG under the name of JPEG, as one of ILSVRC2012 is.
    assert survey(split, (8, 8), 1.0, "bilinear").kinds == {"PNG RGB": 5}


def test_labels_from_a_text_file_or_from_the_extracted_kit(imagenet_files):
    expected = [2, 0, 1, 2, 2]
    assert read_validation_labels(imagenet_files, SYNSETS) == expected
    kit = imagenet_files / "ILSVRC2012_devkit_t12.tar.gz"
    shutil.unpack_archive(kit, imagenet_files, filter="data")
    kit.unlink()
    assert read_validation_labels(imagenet_files, SYNSETS) == expected
    shutil.rmtree(imagenet_files / "ILSVRC2012_devkit_t12")
    text = imagenet_files / "imagenet_2012_validation_synset_labels.txt"
    # With the mark of UTF-8, as some editors write it.
    text.write_text("\ufeffn01440764\nn01440764\nn02206856\nn02219486\nn02219486\n")
    assert read_validation_labels(imagenet_files, SYNSETS) == [0, 0, 1, 2, 2]
    labels = [open_dataset(f"imagenet:{imagenet_files}").eval.source[i][1] for i in range(5)]
    assert labels == [0, 0, 1, 2, 2]
    text.write_text("n01440764\nn01440765\n")
    with pytest.raises(UserError, match="class 'n01440765' is not one of the 3"):
        read_validation_labels(imagenet_files, SYNSETS)
    text.write_text("n01440764\n" * 4)
    with pytest.raises(UserError, match="has 5 images, but there are classes for 4"):
        open_dataset(f"imagenet:{imagenet_files}")


def test_without_validation_files_a_part_of_the_training_images_will_do(imagenet_files):
    (imagenet_files / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(UserError, match="devkit_t12.tar.gz, which is not in .*eval_split"):
        open_dataset(f"imagenet:{imagenet_files}")
    (imagenet_files / "ILSVRC2012_img_val.tar").unlink()
    dataset = open_dataset(f"imagenet:{imagenet_files}", train_split="train[:6]",
                           eval_split="train[6:]")
    assert (len(dataset.train), len(dataset.eval)) == (6, 3)


def test_val_is_not_taken_for_a_part_of_the_training_images(imagenet_files):
    with pytest.raises(UserError, match="no split 'val'. There are: train, validation"):
        open_dataset(f"imagenet:{imagenet_files}", eval_split="val")


def test_what_is_missing_or_something_else_is_named(imagenet_files, write_tar, tmp_path):
    with pytest.raises(UserError, match="no folder .*imagenett.*Did you mean 'imagenet'"):
        open_dataset(f"imagenet:{tmp_path / 'imagenett'}")
    kit = imagenet_files / "ILSVRC2012_devkit_t12.tar.gz"
    whole = kit.read_bytes()
    for contents in (whole[:200], b"no archive"):
        kit.write_bytes(contents)
        with pytest.raises(UserError, match="is not the development kit"):
            open_dataset(f"imagenet:{imagenet_files}")
    kit.write_bytes(whole)
    write_tar("imagenet/ILSVRC2012_img_train.tar", {"a.JPEG": b"x"})
    with pytest.raises(UserError, match="one tar file for each class.*It holds: a.JPEG"):
        open_dataset(f"imagenet:{imagenet_files}")
    (imagenet_files / "ILSVRC2012_img_train.tar").unlink()
    with pytest.raises(UserError, match="There is no ILSVRC2012_img_train.tar in"):
        open_dataset(f"imagenet:{imagenet_files}")


@pytest.mark.parametrize("name", ["n02219486", "n02206856"])
def test_a_damaged_inner_tar_is_named(imagenet_files, name):
    path = imagenet_files / "ILSVRC2012_img_train.tar"
    whole = bytearray(path.read_bytes())
    whole[whole.index(f"{name}_1.JPEG".encode()) + 3] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match=f"{name}.tar is not a tar file, is damaged"):
        open_dataset(f"imagenet:{imagenet_files}")


def test_an_image_of_an_impossible_size_is_named_and_not_read(imagenet_files, claim_size):
    claim_size(imagenet_files / "ILSVRC2012_img_train.tar", "n02219486_1.JPEG", 2**62)
    with pytest.raises(UserError, match="n02219486.tar is .*damaged.*longer than the file"):
        open_dataset(f"imagenet:{imagenet_files}")


def test_a_download_that_was_cut_short_is_named(imagenet_files):
    path = imagenet_files / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:-12_000])
    with pytest.raises(UserError, match="ILSVRC2012_img_train.tar .*was cut short"):
        open_dataset(f"imagenet:{imagenet_files}")


def test_pixels(imagenet_files, image_folder):
    dataset = open_dataset(f"imagenet:{imagenet_files}")
    image, label = dataset.train.source[8]
    expected = open_dataset(f"folder:{image_folder}").train.source[8][0]
    assert label == 1 and image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.skipif(not shutil.which("bash"), reason="the guide's commands are bash's")
def test_the_commands_of_the_guide_extract_what_the_tar_files_hold(imagenet_files, root):
    guide = (root / "docs/imagenet.md").read_text().partition("### (a)")[2].partition("### (b)")[0]
    bash, python = (re.search(rf"```{language}\n(.*?)```", guide, re.DOTALL)[1]
                    for language in ("bash", "python"))
    folder = imagenet_files.rename(imagenet_files.with_name("ILSVRC2012")).parent
    subprocess.run(["bash", "-euc", bash], cwd=folder, check=True)
    subprocess.run([sys.executable, "-c", python], cwd=folder, check=True,
                   env={"PYTHONPATH": str(root)})
    extracted = open_dataset(f"folder:{folder / 'imagenet'}")
    straight = open_dataset(f"imagenet:{folder / 'ILSVRC2012'}")
    assert extracted.class_names == straight.class_names == SYNSETS
    for a, b, count in ((extracted.train, straight.train, 9), (extracted.eval, straight.eval, 5)):
        pairs = [sorted(s.source.encoded(i)[:2] for i in range(count)) for s in (a, b)]
        assert pairs[0] == pairs[1] and len(a) == len(b) == count
