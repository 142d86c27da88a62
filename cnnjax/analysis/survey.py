"""A set of images seen by a model once: answers, features, and what moves each channel most."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.models.layers import check_endpoint
from cnnjax.types import UserError


class Peak(NamedTuple):
    """Where one image moves a channel most: its number, (row, column) on the map, the value."""

    image: int
    position: tuple[int, int]
    value: float


@dataclasses.dataclass(frozen=True)
class Survey:
    """What `survey` found, of N images.

    Attributes:
      logits: (N, classes).
      features: (N, d), what the head sees.
      largest: {endpoint: (N, C)}, of every channel of every map the largest value.
      where: {endpoint: (N, C, 2)}, the (row, column) of that value.
      pooled: {endpoint: (N, h w C)}, the maps averaged to a few positions.
      map_size: {endpoint: (height, width)}.
    """

    logits: np.ndarray
    features: np.ndarray
    largest: dict[str, np.ndarray]
    where: dict[str, np.ndarray]
    pooled: dict[str, np.ndarray]
    map_size: dict[str, tuple[int, int]]

    @property
    def probabilities(self) -> np.ndarray:
        """(N, classes), the softmax of the logits."""
        return np.asarray(jax.nn.softmax(self.logits))

    def strongest(self, endpoint: str, channel: int, count: int) -> list[Peak]:
        """Returns where a channel of a map is largest, one place an image, the strongest first."""
        values, where = self.largest[endpoint][:, channel], self.where[endpoint][:, channel]
        return [Peak(int(i), (int(where[i, 0]), int(where[i, 1])), float(values[i]))
                for i in np.argsort(-values, kind="stable")[:count]]

    def live_channels(self, endpoint: str, count: int) -> list[int]:
        """Returns channels of a map, evenly spaced among those that differ between images.

        They are not chosen for what they show. A channel that a ReLU keeps at 0 has nothing to.
        """
        live = np.flatnonzero(np.ptp(self.largest[endpoint], axis=0) > 0)
        chosen = np.linspace(0, len(live) - 1, min(count, len(live))).round().astype(int)
        return live[chosen].tolist()


def survey(module: nn.Module, variables: Any, batches: Iterable[Any],
           endpoints: Sequence[str] | None = None, grid: int = 7) -> Survey:
    """Returns what a model makes of images, a batch at a time; maps are not kept.

    Args:
      module: any module of `create_model`'s contract, with classes.
      variables: of the module.
      batches: of images (n, H, W, C) as the model takes them.
      endpoints: names of `module.endpoints` that are maps; None is all of them.
      grid: positions that `pooled` has at most along each side of a map.

    Raises:
      UserError: if there is no such endpoint or it is no map, or no image.
    """
    parts, shapes, size = [], {}, 0
    for batch in batches:
        batch = jnp.asarray(batch)
        if not len(batch):
            continue
        if not parts:
            shapes = _map_shapes(module, variables, batch.shape, endpoints)
        # A smaller one is filled up with what is cut off again: of one size it compiles once.
        size = max(size, len(batch))
        filled = jnp.concatenate([batch, jnp.zeros((size - len(batch), *batch.shape[1:]),
                                                   batch.dtype)])
        found = _look(module, tuple(shapes), grid, variables, filled)
        count = len(batch)
        parts.append(jax.tree.map(lambda a, n=count: np.asarray(a)[:n], found))
    if not parts:
        raise UserError("survey: there are no images.")
    return Survey(**jax.tree.map(lambda *a: np.concatenate(a), *parts),
                  map_size={name: shape[1:3] for name, shape in shapes.items()})


def map_endpoints(module: nn.Module, variables: Any, input_shape: Sequence[int],
                  endpoints: Sequence[str] | None = None) -> tuple[str, ...]:
    """Returns the endpoints that are maps (N, h, w, C), in order.

    Args:
      module, variables: as in `survey`; shapes of the variables will do.
      input_shape: (N, H, W, C).
      endpoints: those to check; None is all of the model's.

    Raises:
      UserError: if one of `endpoints` is none, or no map.
    """
    return tuple(_map_shapes(module, variables, input_shape, endpoints))


def _map_shapes(module, variables, input_shape, endpoints) -> dict[str, tuple[int, ...]]:
    for name in endpoints or ():
        check_endpoint(name, module.endpoints)
    images = jax.ShapeDtypeStruct(tuple(input_shape), jnp.float32)
    shapes = jax.eval_shape(functools.partial(module.apply, train=False, capture=module.endpoints),
                            variables, images)[1]
    maps = tuple(name for name in module.endpoints if len(shapes[name].shape) == 4)
    for name in endpoints or ():
        if name not in maps:
            raise UserError(f"{name!r} is no map of (N, h, w, C) but has shape "
                            f"{shapes[name].shape}. The maps are: {', '.join(maps)}.")
    return {name: shapes[name].shape for name in maps if name in (endpoints or maps)}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _look(module, maps, grid, variables, images):
    logits, found = module.apply(variables, images, train=False, capture=(*maps, "features"))
    largest, where, pooled = {}, {}, {}
    for name in maps:
        n, h, w, channels = found[name].shape
        flat = found[name].astype(jnp.float32).reshape(n, h * w, channels)
        largest[name] = flat.max(1)
        where[name] = jnp.stack(jnp.divmod(flat.argmax(1), w), -1)
        small = jax.image.resize(flat.reshape(n, h, w, channels),
                                 (n, min(h, grid), min(w, grid), channels), "linear")
        pooled[name] = small.reshape(n, -1)
    logits, features = (a.astype(jnp.float32) for a in (logits, found["features"]))
    return dict(logits=logits, features=features.reshape(len(features), -1), largest=largest,
                where=where, pooled=pooled)
