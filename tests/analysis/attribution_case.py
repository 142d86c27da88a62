"""A small model's weights and images, from NumPy alone: for the golden values and the tests."""

import functools

import numpy as np

WIDTHS = (6, 8, 10)
CLASSES = np.array([1, 4, 0])
IMAGES = np.random.default_rng(1).normal(size=(3, 16, 16, 3)).astype(np.float32)


def weights():
    """Returns {(layer, name): float32 array} in the layouts of cnnjax."""
    rng, found, inputs = np.random.default_rng(0), {}, 3
    for i, width in enumerate(WIDTHS, 1):
        found[f"conv{i}", "kernel"] = rng.normal(0, (2 / 9 / inputs) ** 0.5, (3, 3, inputs, width))
        found[f"conv{i}", "bias"] = rng.normal(0, 0.1, width)
        found[f"norm{i}", "scale"] = rng.uniform(0.5, 1.5, width)
        found[f"norm{i}", "bias"] = rng.normal(0, 0.1, width)
        found[f"norm{i}", "mean"] = rng.normal(0, 0.1, width)
        found[f"norm{i}", "var"] = rng.uniform(0.5, 1.5, width)
        inputs = width
    found["head", "kernel"] = rng.normal(0, inputs**-0.5, (inputs, 5))
    found["head", "bias"] = rng.normal(0, 0.1, 5)
    return {name: value.astype(np.float32) for name, value in found.items()}


@functools.cache
def variables():
    """Returns `weights` as the model takes them."""
    found = {"params": {}, "batch_stats": {}}
    for (layer, name), value in weights().items():
        kind = "batch_stats" if name in ("mean", "var") else "params"
        found[kind].setdefault(layer, {})[name] = value
    return found
