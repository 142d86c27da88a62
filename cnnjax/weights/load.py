"""Pretrained weights into a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import trees
from cnnjax.models import create_model, list_models, lookup
from cnnjax.types import Preprocess, UserError
from cnnjax.weights import imagenet, matching, published, sources

PyTree = Any


class Pretrained(NamedTuple):
    """A model with weights.

    Attributes:
      module: the model.
      variables: {"params": …, "batch_stats": …} in float32.
      preprocess: how images become its input.
      class_names: in the order of the outputs, None if nobody says.
      name: of the model.
      arguments: of `create_model`, besides num_classes.
      where: the weights came from.
      new_head: whether the head is none of theirs, being for another number of classes.
      adapted_from: channels of the images that they were for, if those are others now.
      record: of a run, what stands beside the arrays in its checkpoint; else None.
    """

    module: nn.Module
    variables: PyTree
    preprocess: Preprocess
    class_names: tuple[str, ...] | None
    name: str
    arguments: dict[str, Any]
    where: str
    new_head: bool = False
    adapted_from: int | None = None
    record: Mapping[str, Any] | None = None


class UnnamedError(UserError):
    """No name of a model was given, and the source says none."""


def load_weights(name: str, path_or_id: str | Path, num_classes: int | None = None, *,
                 in_chans: int | None = None, tag: str | None = None,
                 rng: jax.Array | None = None, **overrides: Any
                 ) -> tuple[nn.Module, PyTree, Preprocess]:
    """Creates a model and gives it weights, together with the preprocessing that they need.

        module, variables, preprocess = load_weights("resnet50", "resnet50-0676ba61.pth")
        logits = module.apply(variables, images, train=False)

    The weights are a .safetensors file, or a .pth, .pt, .th or .bin file of torch.save, which is
    read as data: nothing in it is executed, and a file that asks for it is refused. Names may be
    those of torchvision, of timm, or of the other code bases in `cnnjax.weights.namings`; every
    tensor of the model must be there and none left over. Only `num_batches_tracked` is skipped,
    and auxiliary heads are left out, with a line in the log, if the model has none.

    Args:
      name: of the model, one of `list_models()`.
      path_or_id: a file; a cnnjax workdir, whose last checkpoint is taken, or one checkpoint in it;
        or a hub id, such as "timm/resnet50.a1_in1k", which needs huggingface_hub.
      num_classes: None takes as many as the weights have. Another number has a new head, drawn as
        module.init(rng, …) does; 0 drops the head and gives features. A file that has no head, as
        timm's of num_classes=0, needs one of the two.
      in_chans: channels of the images; None takes as many as the weights have. For others the first
        convolution is adapted as timm does (`matching.adapt_channels`).
      tag: which of several published sets these weights are, such as "IMAGENET1K_V2". It decides
        the preprocessing alone. By default that comes from the file's metadata, from timm's
        config.json beside it, from the file's published name, or is that of the first set in
        published.csv; replace what you know better with dataclasses.replace.
      rng: key of a new head; None is jax.random.key(0).
      **overrides: arguments of `create_model`. A cnnjax file or run brings its own.

    Returns:
      The module, its variables in float32 whatever the file has, and the preprocessing.

    Raises:
      UserError: if the model, the file or the tag is not there, the file is refused or says, as
        timm's config.json does, that it is another model, or its tensors are not the model's; lists
        those that are missing, left over or of another shape.
    """
    return load(name, path_or_id, num_classes, in_chans=in_chans, tag=tag, rng=rng,
                **overrides)[:3]


def load(name: str | None, path_or_id: str | Path, num_classes: int | None = None, *,
         in_chans: int | None = None, tag: str | None = None, rng: jax.Array | None = None,
         **overrides: Any) -> Pretrained:
    """As `load_weights`, with all that is known; with no name, the one that the source has."""
    if name is not None:
        lookup(name)  # Before a large file is read.
    source = sources.read(path_or_id)
    name = _name(name, source)
    arguments = {**source.arguments, **overrides}
    size, channels = _input_size(name, source)
    # Tracing a deep model takes seconds: a right guess saves the second time.
    guess = source.num_classes
    if guess is None:
        guess = 1000 if lookup(name).input_size[0] >= 128 else 10
    module = create_model(name, guess, **arguments)
    like = matching.shapes(module, size, channels)
    naming = matching.best_naming(module, source.tensors, like)
    if source.num_classes is None:  # Files that cnnjax has written say all of it.
        arguments = {**naming.arguments_of(name), **arguments}
    found, hint = matching.classes_of(naming, source.tensors, like), ""
    trunk = matching.lacks_head(naming, source.tensors, like)
    if trunk and num_classes is None:
        hint = "It has no head: num_classes=0 gives features, another number a new head."
    elif trunk:
        found = 0
    module = create_model(name, guess if found is None else found, **arguments)
    match = matching.fit(name, module, source.tensors, naming, size, channels, source.where, hint)
    preprocess = source.preprocess
    if preprocess is None or tag is not None:
        preprocess = published.preprocess_of(name, source=naming.source, file=source.file, tag=tag)
    class_names = None if trunk else source.class_names
    if class_names is not None and len(class_names) != module.num_classes:
        raise UserError(f"{source.where} has names of {len(class_names)} classes and "
                        f"{module.num_classes} outputs.")
    if class_names is None and module.num_classes == 1000 and lookup(name).input_size[0] >= 128:
        class_names = imagenet.class_names()
    wanted = module.num_classes if num_classes is None else num_classes
    if new_head := wanted != module.num_classes:
        module, class_names = create_model(name, wanted, **arguments), None
    new_channels = in_chans or match.channels
    variables = _adapted(module, match, size, new_channels,
                         jax.random.key(0) if rng is None else rng)
    return Pretrained(module, variables, published.for_channels(preprocess, new_channels),
                      class_names, name, arguments, source.where, new_head,
                      match.channels if match.channels != new_channels else None, source.record)


def _name(name: str | None, source: sources.Source) -> str:
    said = source.model
    if name is None and said is None:
        raise UnnamedError(f"{source.where} does not say which model it is: name it.")
    if said in (None, name):
        return name
    if name is not None and not source.file:
        raise UserError(f"{source.where} is a run of {said}, not of {name}.")
    # Tensors that fit prove nothing: padding, epsilon and pooling don't show in them.
    if said not in list_models():
        config = (" That is what the config.json beside it says: if it is wrong, give the path of "
                  "the file without it." if source.num_classes is None else "")
        raise UserError(f"{source.where} says that it is {said}, and there is no such model here."
                        f"{config}")
    if name is None:
        return said
    # Two names may have one row; a file that cnnjax has written brings the arguments.
    if source.num_classes is None or lookup(said) != lookup(name):
        raise UserError(f"{source.where} says that it is {said}, not {name}: give that name.")
    return name


def _input_size(name: str, source: sources.Source) -> tuple[tuple[int, int], int]:
    """Returns (height, width) and channels of the images that the source's model takes."""
    # Of a file that cnnjax has written, or of a run.
    if source.preprocess is not None and source.num_classes is not None:
        return source.preprocess.size, source.preprocess.channels
    height, width, channels = lookup(name).input_size
    return (height, width), channels


def _adapted(module: nn.Module, match: matching.Match, size: tuple[int, int], channels: int,
             rng: jax.Array) -> PyTree:
    """Returns a match's variables for a module of perhaps other classes, and other channels."""
    like = matching.shapes(module, size, channels)
    found = trees.named_leaves(match.variables)
    if channels != match.channels:
        for path in matching.differing(like, matching.shapes(module, size, match.channels)):
            found[path] = matching.adapt_channels(found[path], channels)
    leaves = trees.named_leaves(like)
    new = [path for path, leaf in leaves.items()
           if path not in found or found[path].size != leaf.size]
    if new:
        found.update(matching.fresh(module, size, channels, new, rng))
    # From here on the file may change.
    return jax.block_until_ready(jax.tree.unflatten(
        jax.tree.structure(like), [_put(found[path], leaf.shape) for path, leaf in leaves.items()]))


def _put(array: np.ndarray | jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns an array of JAX's own, in float32: of what is laid out otherwise the only copy."""
    if isinstance(array, jax.Array):
        return array
    array = np.require(array, np.float32, "A")
    if array.flags.c_contiguous:
        array = np.require(array, requirements="W")  # JAX would share the pages of the file.
    array = jax.device_put(array)
    return array if array.shape == shape else _reshaped(array, shape)


# In place; NumPy's would be of a copy more.
_reshaped = jax.jit(jnp.reshape, static_argnums=1, donate_argnums=0)
