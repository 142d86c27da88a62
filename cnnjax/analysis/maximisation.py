"""Images that maximise what a network computes: feature visualisation by optimisation."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax import ops
from cnnjax.analysis import image_space, wobble
from cnnjax.analysis import objectives as terms
from cnnjax.analysis.objectives import Objective
from cnnjax.models.layers import check_endpoint
from cnnjax.types import Preprocess, UserError

# Steps of one call on a GPU or TPU.
SCANNED = 32


class Maximised(NamedTuple):
    """Images and how they came about.

    Attributes:
      images: (N, H, W, C) in [0, 1], in the objectives' order, copies of one side by side.
      history: (steps, N), the objective of each image before each step, as the network saw it,
        shifted, scaled and rotated; without the diversity term.
    """

    images: np.ndarray
    history: np.ndarray


class Setting(NamedTuple):
    """What a compiled step depends on besides its arrays."""

    module: nn.Module
    endpoints: tuple[str, ...]
    size: tuple[int, int]
    transforms: wobble.Transforms
    learning_rate: float
    scanned: bool


def maximise(module: nn.Module, variables: Any, objectives: Objective | Sequence[Objective], *,
             size: int | tuple[int, int] | None = None, steps: int = 256, seed: int = 0,
             preprocess: Preprocess | None = None, channels: int | None = None,
             transforms: wobble.Transforms | None = wobble.STANDARD,
             parameterisation: image_space.Parameterisation = "fourier",
             colors: Any = "imagenet", lr: float = 0.05,
             batch_size: int | None = None) -> Maximised:
    """Makes an image for each objective by gradient ascent from faint noise.

        found = maximise(model, variables, [channel("stage3", 17), class_logit(3)], size=128)

    Objectives of one endpoint are one batch and one program, which ends at that endpoint. No image
    depends on which others are made in the same call, but for those of one `diverse` objective.

    Behind a ReLU a channel may be silent for the whole of the noise, and there is no gradient. Such
    an image takes random steps of Adam's size, and so gains contrast, until something answers. If
    nothing ever does, its history is constant and it shows noise alone.

    Args:
      module: any module of `create_model`'s contract.
      variables: of the module.
      objectives: of `channel`, `neuron`, `class_logit`, `direction` and `diverse`.
      size: of the images in pixels, (height, width) or one for both; by default that of
        `preprocess`.
      steps: of Adam.
      seed: of the noise and of the transforms.
      preprocess: whose mean and std the network wants; None shows it the images in [0, 1].
      channels: of the images; by default those of `preprocess`, or 3.
      transforms: `Transforms(shift=…, scale=…, rotate=…, pad=…)`; None leaves the image as it is.
      parameterisation: "fourier" or "pixels", see `image_space`.
      colors: "imagenet" decorrelates the colours of ImageNet, an array (C, C) of `color_basis`
        those of another data set, None no colours.
      lr: of Adam.
      batch_size: images that are computed at once, all by default.

    Raises:
      UserError: if an endpoint, a channel, a position or a class is not there, the model does not
        take images of the size, or an argument is out of range.

    Source: Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017,
    doi 10.23915/distill.00007; Erhan et al., 2009, for the idea.
    """
    what = [objectives] if isinstance(objectives, Objective) else list(objectives)
    height, width, channels = image_size(size, preprocess, channels)
    checked(what, steps, lr, batch_size)
    basis = image_space.normalised_colors(colors, channels)
    normal = normalisation(preprocess, channels)
    total = sum(o.copies for o in what)
    key = jax.random.key(seed)
    noise = image_space.start(key, total, height, width, channels, parameterisation)
    axis = noise.ndim - 4  # Of the images; a spectrum has its two parts before them.
    images = np.zeros((total, height, width, channels), np.float32)
    history = np.zeros((steps, total), np.float32)
    transforms = wobble.STILL if transforms is None else transforms
    for members, places in batches(what, batch_size):
        setting = Setting(module, members[0].endpoints, (height, width), transforms, lr,
                          jax.default_backend() != "cpu")
        shape = endpoint_shapes(setting, variables, channels)[members[0].endpoint]
        tables = terms.arrays(members, shape) | {"places": np.array(places)}
        given = (variables, jnp.asarray(basis), normal, tables, key)
        coordinates = jnp.take(noise, np.array(places), axis)
        coordinates, history[:, places] = _optimise(setting, given, coordinates, steps)
        images[places] = _rendered(coordinates, jnp.asarray(basis), height, width)
    return Maximised(images, history)


def image_size(size: Any, preprocess: Preprocess | None,
               channels: int | None) -> tuple[int, int, int]:
    """Returns (height, width, channels) of the images that an optimisation is about.

    Raises:
      UserError: if nobody says a size, it is below 2 pixels, or the channels are not those of
        `preprocess`.
    """
    if size is None and preprocess is None:
        raise UserError("Say the images' size in pixels, such as size=128, or give preprocess.")
    size = preprocess.size if size is None else size
    height, width = (size, size) if np.ndim(size) == 0 else size
    if min(height, width) < 2:
        raise UserError(f"size must be 2 pixels or more, got {size}.")
    wanted = None if preprocess is None else preprocess.channels
    if None not in (channels, wanted) and channels != wanted:
        raise UserError(f"channels={channels}, but preprocess is for {wanted}.")
    return int(height), int(width), channels or wanted or 3


def normalisation(preprocess: Preprocess | None, channels: int) -> tuple[jax.Array, jax.Array]:
    """Returns mean and std (C,) by which images in [0, 1] become the network's input."""
    if preprocess is None:
        return jnp.zeros(channels), jnp.ones(channels)
    return jnp.array(preprocess.mean), jnp.array(preprocess.std)


def checked(what: Sequence[Objective], steps: int, lr: float, batch_size: int | None) -> None:
    """Raises a UserError if there is nothing to do, or a number is out of range."""
    if not what:
        raise UserError("maximise: give one objective or more, such as channel('stage1', 0).")
    for item in what:
        if not isinstance(item, Objective):
            raise UserError("maximise: objectives are made by channel, neuron, class_logit, "
                            f"direction and diverse; got {item!r}.")
    for name, value in (("steps", steps), ("batch_size", 1 if batch_size is None else batch_size)):
        if value < 1:
            raise UserError(f"maximise: {name} must be 1 or more, got {value}.")
    if not lr > 0:
        raise UserError(f"maximise: lr must be above 0, got {lr}.")


def batches(what: Sequence[Objective], batch_size: int | None):
    """Yields (objectives, places of their images): of the same endpoints, few at a time."""
    places, count = [], 0
    for item in what:
        places.append(list(range(count, count + item.copies)))
        count += item.copies
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, item in enumerate(what):
        groups.setdefault(item.endpoints, []).append(i)
    for group in groups.values():
        batch: list[int] = []
        for i in group:
            images = sum(what[j].copies for j in batch)
            if batch and batch_size and images + what[i].copies > batch_size:
                yield [what[j] for j in batch], [p for j in batch for p in places[j]]
                batch = []
            batch.append(i)
        yield [what[j] for j in batch], [p for j in batch for p in places[j]]


def endpoint_shapes(setting: Setting, variables: Any, channels: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each endpoint for one image; raises a UserError if there is none."""
    for endpoint in setting.endpoints:
        check_endpoint(endpoint, setting.module.endpoints)
    height, width = (n + 2 * setting.transforms.pad for n in setting.size)
    image = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    try:
        found = jax.eval_shape(functools.partial(_activations, setting), variables, image)
    except (flax.errors.FlaxError, TypeError, ValueError) as error:
        raise UserError(f"The model does not take images of {height}x{width} pixels (pad included) "
                        f"and {channels} channels, which `maximise` is told by size=, channels= or "
                        f"preprocess=: {str(error).splitlines()[0]}") from error
    return {name: value.shape for name, value in found.items()}


def _activations(setting, variables, images):
    # As in a training step: noise in the last digits does no harm, and time matters.
    with ops.training():
        return setting.module.apply(variables, images, train=False,
                                    capture=tuple(dict.fromkeys(setting.endpoints)))[1]


def _optimise(setting, given, coordinates, steps):
    """Returns the coordinates after so many steps, and the history (steps, N)."""
    state = coordinates, optax.adam(setting.learning_rate).init(coordinates)
    length = min(SCANNED, steps) if setting.scanned else 1
    history = []
    for first in range(0, steps, length):
        number = min(length, steps - first)
        state, seen = _steps(setting, number, given, state, first)
        history.append(seen)
    return state[0], np.concatenate(jax.device_get(history))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _steps(setting, number, given, state, first):
    """`number` steps; on CPU one, since XLA:CPU computes a convolution in a loop many times slower
    than outside of one, and on other backends a loop, which the host need not feed."""
    if number == 1:
        state, seen = _step(setting, given, state, first)
        return state, seen[None]
    return jax.lax.scan(lambda state, step: _step(setting, given, state, step), state,
                        first + jnp.arange(number))


def _step(setting, given, state, step):
    variables, basis, (mean, std), tables, key = given
    coordinates, memory = state
    matrix, offset = wobble.drawn(jax.random.fold_in(key, step), setting.transforms)

    def loss(coordinates):
        images = (image_space.rendered(coordinates, basis, *setting.size) - mean) / std
        if setting.transforms != wobble.STILL:
            images = wobble.moved(images, matrix, offset, setting.transforms.pad)
        found = _activations(setting, variables, images)
        seen = total = terms.values(found[setting.endpoints[0]], tables)
        if len(setting.endpoints) > 1:
            alike = terms.likeness(found[setting.endpoints[1]], tables["alike"])
            spread = jnp.abs(jax.lax.stop_gradient(seen))
            total = seen - tables["weight"] * spread * alike
        return -total.sum(), seen

    gradient, seen = jax.grad(loss, has_aux=True)(coordinates)
    update, memory = optax.adam(setting.learning_rate).update(gradient, memory)
    axis = update.ndim - 4  # Of the images.
    rest = tuple(i for i in range(update.ndim) if i != axis)
    still = jnp.all(update == 0, rest, keepdims=True)  # No gradient, now or before.

    def random_steps():
        found = image_space.noise(jax.random.fold_in(key, step), tables["places"],
                                  tuple(update.shape[i] for i in rest))
        return jnp.where(still, setting.learning_rate * found, update)

    # Noise costs time, and few images need any.
    return (coordinates + jax.lax.cond(still.any(), random_steps, lambda: update), memory), seen


@functools.partial(jax.jit, static_argnums=(2, 3))
def _rendered(coordinates, basis, height, width):
    return image_space.rendered(coordinates, basis, height, width)
