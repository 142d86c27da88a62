"""Weights as safetensors that torch's models take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
import safetensors.numpy

from cnnjax import trees
from cnnjax.files import write_whole
from cnnjax.models import create_model, identify, lookup
from cnnjax.types import Preprocess, UserError
from cnnjax.weights import matching, namings
from cnnjax.weights import naming as naming_lib

PyTree = Any
_LIBRARIES = ("cnnjax", "jax", "flax", "safetensors")


def save_weights(path: str | Path, model: str | nn.Module, variables: PyTree, *,
                 preprocess: Preprocess | None = None, class_names: Sequence[str] | None = None,
                 **overrides: Any) -> None:
    """Writes variables as safetensors in the names and layouts of torchvision, or of timm.

        cnnjax.save_weights("resnet50.safetensors", module, variables, preprocess=preprocess)
        model.load_state_dict(safetensors.torch.load_file("resnet50.safetensors"))  # in torch

    The names are torchvision's if it has the family, so that its `load_state_dict(strict=True)`
    takes the file (`num_batches_tracked` is written too, as 0); only a simple_cnn without global
    pooling keeps the order of its map, channels last, in the layer after it. The metadata hold what
    `load_weights` needs: model, arguments, preprocessing, class names, and library versions.

    Args:
      path: of the file, which is replaced only when the new one is whole.
      model: the module, as `create_model` or `load_weights` gives it, whose name and arguments are
        found; or a name, one of `list_models()`, with the arguments that `load_weights` may have
        added: weights of other code bases compute with a padding or an epsilon of their own.
      variables: {"params": …, "batch_stats": …} of it, with any number of classes and channels.
      preprocess: how images become its input; kept in the file if given.
      class_names: in the order of the outputs; kept in the file if given.
      **overrides: of a name, the arguments of `create_model`, besides num_classes, that the
        variables are of.

    Raises:
      UserError: if there is no such model, or the variables are not its; lists the differences.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"save_weights writes safetensors: end {path} in .safetensors.")
    name, arguments, module = _opened(model, variables, overrides)
    _check(name, module, variables, preprocess)
    try:
        naming = namings.to_save(name, module)
    except KeyError:
        raise UserError(f"No names for the tensors of {name} are known; keep its weights as a "
                        "checkpoint.") from None
    if class_names is not None and len(class_names) != module.num_classes:
        raise UserError(f"save_weights: {len(class_names)} class names for {module.num_classes} "
                        f"outputs of {name}.")
    tensors = naming_lib.to_torch(naming, variables)
    for key in list(tensors):
        if key.endswith("running_mean"):
            counter = key.removesuffix("running_mean") + "num_batches_tracked"
            tensors[counter] = np.zeros((), np.int64)
    about = {"format": "pt", "model": name, "names": naming.source,
             "num_classes": str(module.num_classes),
             # How it computes is no property of the weights.
             "arguments": json.dumps({k: v for k, v in arguments.items() if k != "dtype"}),
             **{library: metadata.version(library) for library in _LIBRARIES
                if _is_installed(library)}}
    if preprocess is not None:
        about["preprocess"] = json.dumps(preprocess.to_dict())
    if class_names is not None:
        about["class_names"] = json.dumps(list(class_names))
    try:
        write_whole(path, safetensors.numpy.save(tensors, about))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from None


def _opened(model: str | nn.Module, variables: PyTree, overrides: dict[str, Any]
            ) -> tuple[str, dict[str, Any], nn.Module]:
    """Returns the name, arguments and module that variables are said to be of."""
    if not isinstance(variables, dict) or "params" not in variables:
        raise UserError('save_weights takes variables, {"params": …, "batch_stats": …}, as '
                        f"module.init gives them; got {type(variables).__name__}.")
    if isinstance(model, nn.Module):
        if overrides:
            raise UserError(f"save_weights: a module brings its arguments; leave out "
                            f"{', '.join(overrides)}.")
        return *identify(model), model
    head = trees.named_leaves(variables).get(matching.HEAD)
    return model, overrides, create_model(model, head.shape[-1] if head is not None else 0,
                                          **overrides)


def _check(name: str, module: nn.Module, variables: PyTree, preprocess: Preprocess | None) -> None:
    """Raises a UserError unless the variables are the module's."""
    *size, channels = lookup(name).input_size
    if preprocess is not None:
        size, channels = preprocess.size, preprocess.channels
    array = {path: np.broadcast_to(np.float32(0), leaf.shape)
             for path, leaf in trees.named_leaves(variables).items()}
    # The same comparison as on loading, by our own names; the values play no part.
    matching.fit(name, module, array, matching.OWN, tuple(size), channels, "what was given",
                 "Give the module that they are of, or all arguments that it was created with.")


def _is_installed(library: str) -> bool:
    try:
        metadata.version(library)
    except metadata.PackageNotFoundError:
        return False
    return True
