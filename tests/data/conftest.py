"""Small data sets of every kind, made on the spot."""

import gzip
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

# augment_cases.py, which make_golden.py imports too.
sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(scope="session")
def mesh() -> Mesh:
    """One device."""
    return Mesh(np.asarray(jax.devices()[:1]), ("data",))


@pytest.fixture
def write_image():
    """Writes an image file with a pattern of its own; returns its pixels where it is lossless."""
    from PIL import Image

    def write(path, height=20, width=30, seed=0, mode="RGB", **save):
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (height, width) if mode == "L" else (height, width, len(mode))
        pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels, mode=mode).save(path, **save)
        return pixels

    return write


@pytest.fixture
def image_folder(tmp_path, write_image):
    """PATH/train and PATH/val of cat and dog, 20 and 8 images, no two of one size."""
    for split, count in (("train", 10), ("val", 4)):
        for c, name in enumerate(("cat", "dog")):
            for i in range(count):
                seed = 100 * c + i + (1000 if split == "val" else 0)
                write_image(tmp_path / "pets" / split / name / f"{i}.png", 20 + i, 31 - i, seed)
    return tmp_path / "pets"


@pytest.fixture
def write_npz(tmp_path):
    """Writes an .npz of random images; keywords replace or (None) remove its arrays."""
    def write(**changes):
        rng = np.random.default_rng(0)
        arrays = {"x_train": rng.integers(0, 256, (50, 9, 7, 3), np.uint8),
                  "y_train": np.arange(50) % 5,
                  "x_test": rng.integers(0, 256, (20, 9, 7, 3), np.uint8),
                  "y_test": np.arange(20) % 5} | changes
        path = tmp_path / "data.npz"
        np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
        return path

    return write


@pytest.fixture
def write_tfds(tmp_path):
    """Writes a TFDS data set as preparation would leave it; returns its data_dir."""
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2

    def write(splits, *, name="toy", version="1.0.0", config=None, shape=(0, 0, 3), classes=3,
              file_format="array_record", supervised=True, files=1):
        """`splits` is {"train": [(encoded image, label), …]}."""
        folder = tmp_path / "tfds" / name / (config or "") / version
        folder.mkdir(parents=True)
        infos = []
        for split, examples in splits.items():
            parts = [part.tolist() for part in np.array_split(np.arange(len(examples)), files)]
            for number, part in enumerate(parts):
                path = folder / f"{name}-{split}.{file_format}-{number:05d}-of-{files:05d}"
                writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
                for image, label in (examples[i] for i in part):
                    example = tf_example_pb2.Example()
                    example.features.feature["image"].bytes_list.value.append(image)
                    example.features.feature["label"].int64_list.value.append(label)
                    writer.write(example.SerializeToString())
                writer.close()
            infos.append({"name": split, "shardLengths": [str(len(part)) for part in parts],
                          "numBytes": "1",
                          "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"})
        keys = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}}
        info = {"name": name, "version": version, "fileFormat": file_format, "splits": infos,
                **({"configName": config} if config else {}),
                **({"supervisedKeys": keys} if supervised else {})}
        (folder / "dataset_info.json").write_text(json.dumps(info))
        module = "tensorflow_datasets.core.features"
        label = ({"classLabel": {"numClasses": str(classes)},
                  "pythonClassName": f"{module}.class_label_feature.ClassLabel"} if classes else
                 {"tensor": {"dtype": "int64", "shape": {}, "encoding": "none"},
                  "pythonClassName": f"{module}.tensor_feature.Tensor"})
        sides = {"dimensions": [str(side or -1) for side in shape]}
        image = {"image": {"dtype": "uint8", "shape": sides},
                 "pythonClassName": f"{module}.image_feature.Image"}
        (folder / "features.json").write_text(json.dumps({
            "pythonClassName": f"{module}.features_dict.FeaturesDict",
            "featuresDict": {"features": {"image": image, "label": label}}}))
        return tmp_path / "tfds"

    return write


@pytest.fixture
def encode():
    """Encodes random pixels: (height, width, seed, ".jpg") -> bytes."""
    import cv2

    def encode(height, width, seed=0, extension=".jpg", channels=3):
        small = np.random.default_rng(seed).integers(0, 256, (4, 4, channels), np.uint8)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        return cv2.imencode(extension, image)[1].tobytes()

    return encode


@pytest.fixture(scope="session")
def run_python(root):
    """Runs a script in a fresh interpreter, and returns what it printed."""
    def run(script, *arguments, devices=1):
        flags = f"--xla_force_host_platform_device_count={devices}"
        result = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True,
            env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(root)}, timeout=240)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    return run


@pytest.fixture
def write_tar(tmp_path):
    """Writes a tar file of {name: bytes}; a value may be a TarInfo, for what is no plain file."""
    def write(path, contents):
        path = tmp_path / path
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for name, value in contents.items():
                if isinstance(value, tarfile.TarInfo):
                    archive.addfile(value)
                    continue
                info = tarfile.TarInfo(name)
                info.size = len(value)
                archive.addfile(info, io.BytesIO(value))
        return path

    return write


@pytest.fixture
def claim_size():
    """Makes the header of a member of a tar file say another size, and perhaps another type."""
    def claim(path, name, size, kind=b"0"):
        data = bytearray(path.read_bytes())
        start = data.index(name.encode())
        number = bytearray(size.to_bytes(12, "big", signed=True))  # GNU's binary form.
        number[0] |= 0x80
        data[start + 124:start + 136], data[start + 156:start + 157] = number, kind
        header = data[start:start + 512]
        header[148:156] = b" " * 8
        data[start + 148:start + 156] = b"%06o\0 " % sum(header)
        path.write_bytes(data)

    return claim


@pytest.fixture
def shards(write_tar, encode, tmp_path):
    """A folder of train-0000.tar, train-0001.tar and val-0000.tar: 12 and 4 photos, 3 classes."""
    for name, numbers in (("train-0000", range(6)), ("train-0001", range(6, 12)),
                          ("val-0000", range(12, 16))):
        write_tar(f"shards/{name}.tar", {
            file: data for i in numbers for file, data in (
                (f"{i:04d}.jpg", encode(20 + i, 40 - i, i)), (f"{i:04d}.cls", b"%d" % (i % 3)))})
    return tmp_path / "shards"


@pytest.fixture
def imagenet_files(write_tar, image_folder, tmp_path):
    """The tar files of ILSVRC2012, of three synsets with 3 PNG images each, and 5 to evaluate on.

    The second tells their classes by the IDs of the development kit, which are not in the order of
    the synsets.
    """
    import scipy.io

    synsets = ("n02219486", "n01440764", "n02206856")
    inner = {name: write_tar(f"inner/{name}.tar", {
        f"{name}_{i}.JPEG": (image_folder / f"train/cat/{3 * c + i}.png").read_bytes()
        for i in range(3)}).read_bytes() for c, name in enumerate(synsets)}
    write_tar("imagenet/ILSVRC2012_img_train.tar", {f"{k}.tar": v for k, v in inner.items()})
    write_tar("imagenet/ILSVRC2012_img_val.tar", {
        f"ILSVRC2012_val_{i:08d}.JPEG": (image_folder / f"train/dog/{i}.png").read_bytes()
        for i in (3, 1, 2, 5, 4)})
    table = np.zeros(4, [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")])
    for row, values in enumerate([(1, synsets[0], 0), (2, synsets[1], 0), (3, synsets[2], 0),
                                  (4, "n00000001", 3)]):
        table[row] = values
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": table})
    kit = write_tar("kit.tar", {
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"1\n2\n3\n1\n1\n",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue()})
    folder = tmp_path / "imagenet"
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(kit.read_bytes()))
    return folder
