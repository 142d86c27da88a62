"""Features of examples as points in the plane, neighbours near one another."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from typing import Any

import numpy as np

from cnnjax.types import UserError


def has_umap() -> bool:
    """Whether umap-learn is installed."""
    return importlib.util.find_spec("umap") is not None


def umap(features: Any, *, neighbors: int = 15, min_dist: float = 0.1, seed: int = 0) -> np.ndarray:
    """Returns (n, 2), a map of features on which neighbours stay neighbours.

    Distances between far points say little on it, unlike in `pca`.

    Args:
      features: (n, …); what follows is flattened.
      neighbors: that each point has; fewer where there are not as many.
      min_dist: of points on the map.
      seed: of the layout.

    Raises:
      UserError: if umap-learn is not installed, or there are fewer than 4 examples.

    Source: McInnes, Healy & Melville, arXiv 1802.03426.
    """
    features = np.asarray(features, np.float32)
    if len(features) < 4:
        raise UserError(f"umap: {len(features)} examples make no map; give 4 or more.")
    if not has_umap():
        raise UserError("umap needs umap-learn: pip install umap-learn. (pca needs nothing.)")
    # umap imports TensorFlow where it is installed, seconds for a part that is not used here.
    hidden = "tensorflow" not in sys.modules
    if hidden:
        sys.modules["tensorflow"] = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from umap import UMAP

            return UMAP(n_neighbors=min(neighbors, len(features) - 1), min_dist=min_dist, n_jobs=1,
                        init="random" if len(features) < 8 else "spectral",
                        random_state=seed).fit_transform(features.reshape(len(features), -1))
    finally:
        if hidden:
            del sys.modules["tensorflow"]
