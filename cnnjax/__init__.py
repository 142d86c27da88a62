"""cnnjax: convolutional image classifiers in functional JAX/Flax.

The public names are imported on first use, so that `import cnnjax` (and `launch.py --help`)
does not wait for Flax.
"""

import importlib
import time

IMPORTED_NS = time.time_ns()  # What has changed since may not be what was imported.
_PUBLIC = {
    "list_models": "cnnjax.models",
    "create_model": "cnnjax.models",
    "load_weights": "cnnjax.weights",
    "save_weights": "cnnjax.weights",
    "read_images": "cnnjax.data.inputs",
    "compound_scaling": "cnnjax.models",
    "summarize": "cnnjax.analysis",
    "receptive_field": "cnnjax.analysis",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'cnnjax' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
