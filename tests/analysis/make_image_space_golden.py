"""Writes image_space.npz: what Lucent, Lucid in PyTorch, makes of given coordinates.

    python -m venv reference && reference/bin/pip install torch==2.13.0 torch-lucent==0.1.8
    reference/bin/python tests/analysis/make_image_space_golden.py

The tests need neither.
"""

import pathlib

import numpy as np
import torch
from lucent.optvis import objectives, param


def main():
    found, rng = {}, np.random.default_rng(0)
    for name, kwargs, shape in (("fourier", {"fft": True}, (2, 3, 10, 7, 2)),
                                ("pixels", {"fft": False}, (2, 3, 10, 12)),
                                ("grey", {"fft": True, "channels": 1}, (2, 1, 10, 7, 2))):
        (tensor,), image = param.image(12, 10, batch=2, **kwargs)
        values = rng.normal(size=shape).astype(np.float32)
        tensor.data.copy_(torch.from_numpy(values))
        found[f"{name}_coordinates"] = values
        found[f"{name}_image"] = image().detach().permute(0, 2, 3, 1).numpy()

    # 4 maps of 5x6 positions and 7 channels; the term is negative, and summed over pairs.
    maps = rng.normal(size=(4, 7, 5, 6)).astype(np.float32)
    found["maps"] = maps.transpose(0, 2, 3, 1)
    found["diversity"] = objectives.diversity("x")(lambda _: torch.from_numpy(maps)).numpy()
    np.savez_compressed(pathlib.Path(__file__).parent / "image_space.npz", **found)


if __name__ == "__main__":
    main()
