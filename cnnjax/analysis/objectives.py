"""What an image may be made to maximise: a channel, a neuron, a class, a direction; and diversity.

Each is one number an image, linear in one array of the network: the products of a vector with the
channels, weighted over the positions. So objectives of one endpoint differ in arrays alone, and
any number of them is one program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.types import UserError


@dataclasses.dataclass(frozen=True)
class Objective:
    """One number of a network's activations, made by the functions of this file.

    Attributes:
      endpoint: a name of `module.endpoints`.
      target: a channel's number, or a vector with one weight a channel.
      position: (row, column) on the map; None is the mean over all; "centre".
      copies: images that are made of it.
      diversity: how much unlike they are to be; see `diverse`.
      diversity_endpoint: where they are to be unlike.
      label: for a picture.
    """

    endpoint: str
    target: int | np.ndarray
    position: tuple[int, int] | str | None = None
    copies: int = 1
    diversity: float = 0.0
    diversity_endpoint: str | None = None
    label: str = ""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What has to be captured."""
        return (self.endpoint, *([self.diversity_endpoint] if self.diversity_endpoint else []))


def channel(endpoint: str, number: int) -> Objective:
    """Returns the mean of one channel over its map."""
    return Objective(endpoint, number, label=f"{endpoint} {number}")


def neuron(endpoint: str, number: int, position: tuple[int, int] | None = None) -> Objective:
    """Returns one channel at one position (row, column) of its map, by default the centre."""
    return Objective(endpoint, number, "centre" if position is None else tuple(position),
                     label=f"{endpoint} {number}")


def class_logit(number: int, label: str | None = None) -> Objective:
    """Returns the logit of one class, before the softmax."""
    return Objective("logits", number, label=f"class {number}" if label is None else label)


def direction(endpoint: str, vector: Any, label: str = "") -> Objective:
    """Returns the product of the channels with a vector (C,), the mean over the map."""
    return Objective(endpoint, np.asarray(vector, np.float32), label=label or f"{endpoint}")


def diverse(objective: Objective, copies: int = 4, weight: float = 1.0,
            endpoint: str | None = None) -> Objective:
    """Returns an objective for several images that are to be unlike one another.

        objective - weight * spread * mean cosine between the Gram matrices of its images

    The Gram matrix of a map (positions, C) is map^T map: its textures, wherever they are. `spread`
    is the magnitude of the objective, so that one weight fits all layers; it is not differentiated.

    Args:
      objective: of the functions of this file.
      copies: images.
      weight: of the term.
      endpoint: the map whose textures are compared; by default the objective's own.

    Raises:
      UserError: if there are fewer than 2 copies.

    Source: the diversity term of Olah, Mordvintsev & Schubert, Distill 2017, after Gatys, Ecker &
    Bethge, arXiv 1505.07376.
    """
    if copies < 2:
        raise UserError(f"diverse: copies must be 2 or more, got {copies}.")
    return dataclasses.replace(objective, copies=copies, diversity=float(weight),
                               diversity_endpoint=endpoint or objective.endpoint)


def arrays(objectives: Sequence[Objective], shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns what tells the objectives of one endpoint apart, one row an image.

    Args:
      objectives: all of one endpoint.
      shape: of the endpoint for one image: (1, …, C).

    Returns:
      "channels": (N, C); "positions": (N, P), over the flattened map; "weight": (N,), of the
      diversity; "alike": (N, N), rows that add up to 1 over the other images of an objective.

    Raises:
      UserError: if a channel, a position or a vector is not the endpoint's.
    """
    rows = [row for row, o in enumerate(objectives) for _ in range(o.copies)]
    same = np.equal.outer(rows, rows) & ~np.eye(len(rows), dtype=bool)
    found = {
        "channels": np.stack([_channels(o, shape) for o in objectives])[rows],
        "positions": np.stack([_positions(o, shape) for o in objectives])[rows],
        "weight": np.array([o.diversity for o in objectives])[rows],
        "alike": same / np.maximum(same.sum(1, keepdims=True), 1)}
    return {name: value.astype(np.float32) for name, value in found.items()}


def values(activation: jax.Array, tables: Any) -> jax.Array:
    """Returns (N,) the objectives' values, without diversity.

    Args:
      activation: of the endpoint, (N, …, C).
      tables: of `arrays`.
    """
    flat = activation.reshape(activation.shape[0], -1, activation.shape[-1]).astype(jnp.float32)
    return jnp.einsum("npc,np,nc->n", flat, tables["positions"], tables["channels"])


def likeness(activation: jax.Array, alike: jax.Array) -> jax.Array:
    """Returns (N,) the mean cosine of each image's Gram matrix with those of its companions.

    Args:
      activation: (N, …, C).
      alike: of `arrays`.
    """
    flat = activation.reshape(activation.shape[0], -1, activation.shape[-1]).astype(jnp.float32)
    gram = jnp.einsum("npc,npd->ncd", flat, flat).reshape(flat.shape[0], -1)
    # An image of which nothing is active has no direction; the bound keeps its gradient finite.
    gram = gram / jnp.sqrt(jnp.maximum((gram**2).sum(1, keepdims=True), 1e-12))
    return ((gram @ gram.T) * alike).sum(1)


def _channels(objective: Objective, shape: Sequence[int]) -> np.ndarray:
    channels, where = shape[-1], objective.endpoint
    if np.ndim(objective.target):
        if objective.target.shape != (channels,):
            raise UserError(f"A direction at {where!r} is a vector of {channels} numbers, one a "
                            f"channel; got shape {objective.target.shape}.")
        return objective.target
    if not 0 <= objective.target < channels:
        kind = "classes" if where == "logits" else "channels"
        raise UserError(f"{where!r} has {channels} {kind}, 0 to {channels - 1}; there is no "
                        f"{objective.target}.")
    return np.eye(1, channels, int(objective.target), dtype=np.float32)[0]


def _positions(objective: Objective, shape: Sequence[int]) -> np.ndarray:
    places = tuple(shape[1:-1])
    if objective.position is None:
        return np.full(int(np.prod(places)), 1 / np.prod(places), np.float32)
    position = objective.position
    if isinstance(position, str):
        position = tuple(n // 2 for n in places)
    if len(position) != len(places) or not all(
            0 <= i < n for i, n in zip(position, places, strict=True)):
        raise UserError(f"A neuron of {objective.endpoint!r} has a position on its map of "
                        f"{'x'.join(map(str, places)) or 'no'} positions; got {position}.")
    weights = np.zeros(places, np.float32)
    weights[position] = 1
    return weights.ravel()
