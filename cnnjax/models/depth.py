"""How deep in its model each parameter lies, for rates that fall with depth and for freezing.

The endpoints of a model (stem, stage1, …, features, logits) divide it: a parameter belongs to the
first endpoint that depends on it. That is read off the traced computation, so that it holds for
any model, whatever its layers are called.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
from jax.extend.core import Literal

from cnnjax import trees
from cnnjax.models.layers import FLOAT32, check_endpoint
from cnnjax.models.variables import variable_shapes


def endpoint_of_parameters(module: nn.Module, input_shape: Sequence[int]) -> dict[str, str]:
    """Returns {"stage1_block1/conv1/kernel": "stage1"}: the first endpoint that needs each.

    A parameter that no endpoint needs is an auxiliary head's, and belongs with the head to the
    last one. Traces the model and computes nothing.

    Args:
      module: of `create_model`.
      input_shape: (B, H, W, C).
    """
    x = jax.ShapeDtypeStruct(input_shape, FLOAT32)
    variables = variable_shapes(module, input_shape)
    rest = {name: v for name, v in variables.items() if name != "params"}

    def endpoints(params, rest, x):
        found = module.apply({"params": params, **rest}, x, capture=module.endpoints)[1]
        return [found[name] for name in module.endpoints]

    jaxpr = jax.make_jaxpr(endpoints)(variables["params"], rest, x).jaxpr
    names = list(trees.named_leaves(variables["params"]))
    numbers = {variable: i for i, variable in enumerate(jaxpr.invars[:len(names)])}
    depends = {variable: {i} for variable, i in numbers.items()}
    for equation in jaxpr.eqns:
        inputs = set().union(*(depends.get(v, ()) for v in equation.invars
                               if not isinstance(v, Literal)))
        depends |= dict.fromkeys(equation.outvars, inputs)
    owners = dict.fromkeys(names, module.endpoints[-1])
    for endpoint, output in reversed(list(zip(module.endpoints, jaxpr.outvars, strict=True))):
        owners |= {names[i]: endpoint for i in depends.get(output, ())}
    return owners


def parameters_from(module: nn.Module, input_shape: Sequence[int], endpoint: str) -> frozenset[str]:
    """Returns the names of the parameters of an endpoint and of all that come after it.

    Args:
      module: of `create_model`.
      input_shape: (B, H, W, C).
      endpoint: one of `module.endpoints`, such as "stage3".

    Raises:
      UserError: if the model has no such endpoint.
    """
    check_endpoint(endpoint, module.endpoints)
    after = module.endpoints[module.endpoints.index(endpoint):]
    return frozenset(name for name, owner in endpoint_of_parameters(module, input_shape).items()
                     if owner in after)


def heights(module: nn.Module, input_shape: Sequence[int]) -> dict[str, int]:
    """Returns how many groups of layers lie between each parameter and the output: 0 is the head's.

    Endpoints that have parameters of their own make the groups, in the order of the model.

    Args:
      module: of `create_model`.
      input_shape: (B, H, W, C).
    """
    owners = endpoint_of_parameters(module, input_shape)
    groups = [name for name in reversed(module.endpoints) if name in owners.values()]
    return {name: groups.index(owner) for name, owner in owners.items()}
