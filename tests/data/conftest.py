"""Small data sets of every kind, made on the spot."""

import json
import os
import pathlib
import subprocess
import sys

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
              file_format="array_record", supervised=True):
        """`splits` is {"train": [(encoded image, label), …]}."""
        folder = tmp_path / "tfds" / name / (config or "") / version
        folder.mkdir(parents=True)
        infos = []
        for split, examples in splits.items():
            path = folder / f"{name}-{split}.{file_format}-00000-of-00001"
            writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            for image, label in examples:
                example = tf_example_pb2.Example()
                example.features.feature["image"].bytes_list.value.append(image)
                example.features.feature["label"].int64_list.value.append(label)
                writer.write(example.SerializeToString())
            writer.close()
            infos.append({"name": split, "shardLengths": [str(len(examples))], "numBytes": "1",
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
