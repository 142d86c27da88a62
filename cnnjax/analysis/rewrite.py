"""A model's program, evaluated with changes: an array moved on its way, or other ReLUs.

Derivatives by an intermediate array, and rules of propagation that are no derivatives, need to
reach into a model. They work on its trace (a jaxpr), so that no model has to be written for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from cnnjax import ops
from cnnjax.analysis import primitives

_MADE_OF_RELU6 = ("hard_sigmoid", "hard_silu", "hard_swish")


def logits_and_map(module: nn.Module, variables: Any, images: jax.Array, endpoint: str,
                   shift: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns a model's logits and an endpoint, to which `shift` has been added on the way.

    The derivative of the logits by `shift` is that by the endpoint.

    Args:
      module: any module of `create_model`'s contract.
      variables: of the module.
      images: (N, H, W, C).
      endpoint: a name of `module.endpoints`.
      shift: of the endpoint's shape, zeros for instance.

    Raises:
      UserError: if there is no such endpoint.
    """
    def apply(variables, x):
        logits, found = module.apply(variables, x, train=False, capture=(endpoint,))
        return logits, found[endpoint]

    traced = _trace(apply, variables, images)
    logits, found = _evaluate(traced.jaxpr, traced.consts, jax.tree.leaves((variables, images)),
                              moved={traced.jaxpr.outvars[1]: shift})
    return logits, found


def guided_logits(module: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Returns a model's logits, with ReLUs that let only positive derivatives back.

    Arguments are those of `logits_and_map`.
    """
    traced = _trace(lambda v, x: module.apply(v, x, train=False), variables, images)
    return _evaluate(traced.jaxpr, traced.consts, jax.tree.leaves((variables, images)),
                     guided=True)[0]


def _trace(apply: Callable[..., Any], variables: Any, images: jax.Array):
    # The plain definitions have the derivatives of the functions that they are made of; other
    # formulations bring their own, which are lost when their parts are evaluated one by one.
    with ops.using("xla"):
        return jax.make_jaxpr(apply)(variables, images)


def _evaluate(jaxpr, consts: Sequence[Any], arguments: Sequence[Any], moved: Any = (),
              guided: bool = False) -> list[Any]:
    """Returns the results of a jaxpr.

    Args:
      jaxpr, consts, arguments: the program and what it is given.
      moved: {variable: what is added to it}; variables of the outermost jaxpr.
      guided: whether rectifiers let only positive derivatives back.
    """
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(variable):
        return variable.val if isinstance(variable, Literal) else values[variable]

    for eqn in jaxpr.eqns:
        given = [read(variable) for variable in eqn.invars]
        if eqn.primitive.name in primitives.CALLS:
            results = _call(eqn, given, guided)
        else:
            results = eqn.primitive.bind(*given, **eqn.params)
            results = results if eqn.primitive.multiple_results else [results]
        for variable, value in zip(eqn.outvars, results, strict=True):
            values[variable] = value + moved[variable] if variable in moved else value
    return [read(variable) for variable in jaxpr.outvars]


def _call(eqn, given: Sequence[Any], guided: bool) -> list[Any]:
    inner = primitives.called(eqn)
    consts = next((getattr(v, "consts", ()) for k, v in eqn.params.items()
                   if k in ("jaxpr", "call_jaxpr", "fun_jaxpr")), ())
    if eqn.primitive.name == "custom_jvp_call" and _operations(inner) in ({"max"}, {"max", "min"}):
        return [_rectified(lambda x: _evaluate(inner, consts, [x])[0], given[0], guided)]
    # Made of ReLU6, but none: they have derivatives below 0 or scale what they pass.
    guided = guided and eqn.params.get("name") not in _MADE_OF_RELU6
    return _evaluate(inner, consts, given, guided=guided)


def _operations(jaxpr) -> set[str]:
    """The names of the operations of a jaxpr, with those of what it calls."""
    return {name for eqn in jaxpr.eqns for name in (
        _operations(primitives.called(eqn)) if eqn.primitive.name in primitives.CALLS
        else [eqn.primitive.name])}


def _rectified(relu: Callable[[jax.Array], jax.Array], x: jax.Array, guided: bool) -> jax.Array:
    """ReLU or ReLU6, with JAX's derivative, 0 at the corners, or the guided one."""
    @jax.custom_vjp
    def f(x):
        return relu(x)

    def forward(x):
        y = relu(x)
        return y, (x > 0) & (y == x)

    def backward(passes, dy):
        return (jnp.where(passes, jnp.maximum(dy, 0) if guided else dy, 0),)

    f.defvjp(forward, backward)
    return f(x)
