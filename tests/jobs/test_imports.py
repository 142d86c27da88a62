"""What a training process must not import."""

import importlib.util
import subprocess
import sys

import pytest

CODE = """
import sys
from cnnjax.command_line import main
code = main(sys.argv[1:])
found = sorted({m.partition('.')[0] for m in sys.modules} & {'tensorflow', 'torch'})
print('imported:', found)
sys.exit(code or bool(found))
"""
TINY = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(4,)",
        "--config.train.steps=2", "--config.log.plot=True"]


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None,
                    reason="only shows something where TensorFlow is installed")
@pytest.mark.parametrize("placement", [
    "device", pytest.param("stream", marks=pytest.mark.slow)])
def test_training_imports_neither_tensorflow_nor_torch(placement, root, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *TINY, f"--workdir={tmp_path}",
         f"--config.data.placement={placement}"],
        cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None,
                    reason="only shows something where TensorFlow is installed")
def test_training_on_a_tfds_set_imports_no_tensorflow(root, tmp_path, shared_data):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *TINY, f"--workdir={tmp_path}", "--config.data.name=mnist",
         f"--config.data.data_dir={shared_data / 'tfds'}"],
        cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
