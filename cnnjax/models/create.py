"""From a model's name and arguments to its module."""

from __future__ import annotations

import dataclasses
import fnmatch
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from cnnjax.models.table import TABLE, Entry
from cnnjax.types import UserError, did_you_mean

# Fields of every module that are no argument of a variant.
_NOT_ARGUMENTS = ("num_classes", "parent", "name")
# `int | None` and `Optional[int]`, which Python below 3.14 tells apart.
_UNIONS = (types.UnionType, typing.Union)


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names of the models that match a shell pattern, such as "resnet*_cifar"."""
    return fnmatch.filter(TABLE, pattern)


def lookup(name: str) -> Entry:
    """Returns the row of the model table: class, arguments, input size, year and paper.

    Raises:
      UserError: if there is no such model; the message has the nearest names.
    """
    if name not in TABLE:
        raise UserError(f"There is no model {name!r}.{did_you_mean(str(name), TABLE)} "
                        f"The models are: {', '.join(TABLE)}.")
    return TABLE[name]


def model_arguments(name: str) -> dict[str, Any]:
    """Returns the arguments that `create_model` accepts for a model, with this model's values.

    `num_classes` is not among them, being an argument of every model. Values are numbers,
    strings, None or tuples of them; a dtype is given by its name.

    Raises:
      UserError: if there is no such model.
    """
    entry = lookup(name)
    defaults = {f.name: f.default for f in dataclasses.fields(entry.module)
                if f.name not in _NOT_ARGUMENTS}
    values = {**defaults, **entry.arguments}
    return {k: v.name if isinstance(v, np.dtype) else v for k, v in values.items()}


def create_model(name: str, num_classes: int = 1000, **overrides: Any) -> nn.Module:
    """Returns the module of a named model.

        model = create_model("resnet50", num_classes=10, dtype="bfloat16")
        variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
        apply = jax.jit(model.apply, static_argnames=("train", "capture"))
        logits = apply(variables, images)

    `init` creates every parameter whether `train` or not. `apply` maps floating-point NHWC images
    to float32 logits; with train=True it needs mutable=["batch_stats"] and, if the model drops
    anything, rngs={"dropout": key}. With capture=("stage2", "features") it returns (logits,
    {name: array}); `model.endpoints` lists the names.

    Args:
      name: one of `list_models()`.
      num_classes: outputs of the last layer, `head`; 0 leaves it out and gives pooled features.
      **overrides: any of `model_arguments(name)`. Lists stand for tuples and names for dtypes, so
        that the values may come from a config file.

    Raises:
      UserError: if the name, an argument or its value is unknown; the message says what there is.
    """
    entry = lookup(name)
    where = f"create_model({name!r})"
    kinds = typing.get_type_hints(entry.module)
    known = model_arguments(name)
    for key in overrides:
        if key not in known:
            raise UserError(f"{where}: there is no argument {key!r}."
                            f"{did_you_mean(key, ['num_classes', *known])} The arguments are "
                            f"num_classes, {', '.join(known)}.")
    given = {key: _converted(where, key, value, kinds[key]) for key, value in
             {"num_classes": num_classes, **overrides}.items()}
    return entry.module(**{**entry.arguments, **given})


def arguments_of(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments that the model section of a config sets: {"name": …, ARGUMENT: …}.

    None leaves an argument at the model's own value, or is its value where the model takes None.
    """
    def is_set(key, value):
        kinds = typing.get_type_hints(lookup(section["name"]).module) if value is None else {}
        return value is not None or types.NoneType in typing.get_args(kinds.get(key))

    return {key: value for key, value in section.items() if key != "name" and is_set(key, value)}


# Arguments that change nothing about the function that a trained net is.
_OF_TRAINING = {"dropout_rate", "drop_path_rate", "bn_momentum", "zero_init_residual",
                "depthwise_init", "dtype"}


def identify(module: nn.Module) -> tuple[str, dict[str, Any]]:
    """Returns the name and the arguments, besides num_classes, of which a module can be created.

    Of all names of the module's class, it is the one that needs the fewest arguments which change
    what the net computes in evaluation, then the fewest at all, and of these the first whose row
    they change least.

    Raises:
      UserError: if no model is of the module's class.
    """
    found = []
    for name, entry in TABLE.items():
        if entry.module is type(module):
            found.append((name, {key: value for key, own in model_arguments(name).items()
                                 if (value := getattr(module, key)) != own}))
    if not found:
        raise UserError(f"No model of the table is a {type(module).__name__}. Give a module that "
                        "create_model or load_weights returns.")
    return min(found, key=lambda pair: (
        len(pair[1].keys() - _OF_TRAINING), len(pair[1]),
        len(pair[1].keys() & TABLE[pair[0]].arguments.keys())))


def _converted(where: str, key: str, value: Any, kind: Any) -> Any:
    """Returns an argument's value in the type that its field declares."""
    try:
        converted = _as(kind, value)
    except (TypeError, ValueError):
        raise UserError(f"{where}: {key} must be {_described(kind)}, got {value!r}.") from None
    if key == "num_classes" and converted < 0:
        raise UserError(f"{where}: num_classes must be 0 or more, got {value}.")
    # A growth rate, say, is an integer.
    if kind is float and key.endswith(("_rate", "_momentum")) and not 0 <= converted < 1:
        raise UserError(f"{where}: {key} must be from 0 to below 1, got {value}.")
    if isinstance(converted, tuple) and any(item < 1 for item in converted):
        raise UserError(f"{where}: the numbers of {key} must be positive, got {value!r}.")
    return converted


def _as(kind: Any, value: Any) -> Any:
    """Returns `value` as the type `kind`; raises a TypeError or ValueError if it is none."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is np.dtype:
        if not jnp.issubdtype(dtype := jnp.dtype(value), jnp.floating):
            raise TypeError
        return dtype
    if origin is Literal and value in parts:
        return value
    if origin in _UNIONS:
        if value is None and types.NoneType in parts:
            return None
        return _as(parts[0], value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_as(parts[0], item) for item in value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    raise TypeError


def _described(kind: Any) -> str:
    """Returns a type in words, for a message."""
    words = {bool: "True or False", int: "an integer", float: "a number", str: "a string",
             np.dtype: 'a floating-point dtype such as "bfloat16"'}
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in _UNIONS:
        return f"{_described(parts[0])} or None"
    if origin is tuple:
        return "a tuple of integers" if parts[0] is int else "a tuple of numbers"
    return words[kind]
