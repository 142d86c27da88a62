"""What a frozen model makes of a data set: features, computed once instead of once an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax.lookahead import ahead
from cnnjax.train.step import Batch, replicated

PyTree = Any


def compute_features(trunk: nn.Module, variables: PyTree, constants: PyTree,
                     batches: Iterable[Batch], fetch: Callable[[PyTree, Batch], Mapping],
                     prepare: Callable[[jax.Array], jax.Array], mesh: Mesh, examples: int
                     ) -> dict[str, np.ndarray]:
    """Returns {"image": the features of every image, float32 [N, C], "label": int32 [N]}.

    They stand under the name of the images because they take their place in a feed. They are on the
    host, and there once: those of ImageNet are gigabytes.

    Args:
      trunk: images [B, H, W, C] -> features [B, C], or logits; runs as in evaluation.
      variables: {"params": …, "batch_stats": …}, of the whole model or of the trunk.
      constants: passed to `fetch`, such as resident images.
      batches: of an evaluation: each example once; "mask" is 0 in rows of padding.
      fetch: (constants, batch) -> its "image", "label" and "mask".
      prepare: images as they come from the data set -> the trunk's input.
      mesh: the devices; every one computes a part of each batch.
      examples: of the batches, at most, N of them with mask 1.
    """
    def call(variables, constants, batch):
        batch = fetch(constants, batch)
        features = trunk.apply(variables, prepare(batch["image"]), train=False)
        return {"image": features, "label": batch["label"], "mask": batch["mask"]}

    call = jax.jit(call, out_shardings=replicated(mesh))
    found, end = {}, 0
    for part in on_host(call(variables, constants, batch) for batch in batches):
        counts = part.pop("mask") > 0
        begin, end = end, end + np.count_nonzero(counts)
        for name, rows in part.items():
            if name not in found:
                found[name] = np.empty((examples, *rows.shape[1:]), rows.dtype)
            found[name][begin:end] = rows[counts]
    return {name: whole[:end] for name, whole in found.items()}


def on_host(results: Iterable[PyTree]) -> Iterator[PyTree]:
    """Yields what calls of the device gave, read when two more have been begun.

    So the device has something to do while the host waits for a result and goes through it.
    """
    return map(jax.device_get, ahead(results, lambda result: result))
