"""Every receptive field of every model against what a gradient says.

A linear twin of the model, with every kernel at 1 / fan-in, norms the identity and pools averages,
is differentiated on a strip of pixels as long as the field. Everything in it is positive, so the
pixels with a gradient are those that a position sees. Gates are cut: they see the whole map.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import ops, trees
from cnnjax.analysis.kinds import LOOK, kind_of
from cnnjax.analysis.receptive_field import receptive_field
from cnnjax.models import create_model, list_models, lookup, variable_shapes
from cnnjax.models.layers import Conv, Dense
from cnnjax.ops.geometry import pair
from cnnjax.types import UserError

FAMILIES = {lookup(name).module: name for name in reversed(list_models())}
WHOLE = (24, 10_000)


def marks(name):
    """One model of a family stands for the others, which are left to those who have an hour."""
    return pytest.mark.slow if name in FAMILIES.values() else pytest.mark.exhaustive


# Model, axis, of how many layers, and the longest of their fields: by default one model of each
# family, as deep as is quick, but for those that take longest.
LONG = ("densenet121", "inception_v3", "convnext_tiny", "mobilenet_v3_small", "resnetv2_50")
CASES = [*((name, 0, 6, 200) for name in sorted(FAMILIES.values()) if name not in LONG),
         *(pytest.param(name, axis, *WHOLE, marks=marks(name))
           for name in list_models() for axis in (0, 1))]


def linear_twin(outputs):
    """An interceptor of Flax that simplifies layers and appends what they put out."""
    def simplified(next_call, args, kwargs, context):
        layer = context.module
        kind = kind_of(layer)
        if context.method_name != "__call__" or not layer.path:
            return next_call(*args, **kwargs)
        x = args[0]
        if type(layer).__name__.endswith("Norm"):
            return x
        if kind is None:
            return next_call(*args, **kwargs)
        if isinstance(layer, Conv):
            y = one_channel(layer, x)
        elif isinstance(layer, Dense) and x.ndim == 4:
            y = jnp.broadcast_to(x.mean(-1, keepdims=True), (*x.shape[:3], layer.features))
        else:
            y = next_call(*args, **kwargs)
        if kind in LOOK:
            outputs.append(y)
        is_gate = x.ndim < 4 or x.shape[1] * x.shape[2] == 1
        return jax.lax.stop_gradient(y) if is_gate else y
    return simplified


def one_channel(layer, x):
    """A convolution whose kernel is all 1 / fan-in, from the mean over channels: a narrow twin."""
    small = layer.clone(parent=None, name=None, features=1, groups=1, use_bias=False)
    mean = x.mean(-1, keepdims=True)
    kernel = jnp.ones((*pair(layer.kernel_size, "kernel_size"), 1, 1), x.dtype)
    y = small.apply({"params": {"kernel": kernel / kernel.size}}, mean)
    return jnp.broadcast_to(y, (*y.shape[:3], layer.features))


def constants(shapes):
    """Every kernel 1 / fan-in, every bias 0, every scale 1."""
    def value(name, leaf):
        fan_in = np.prod(leaf.shape[:-1]) if name.endswith("kernel") else 1
        return jnp.full(leaf.shape, 0.0 if name.endswith("bias") else 1 / fan_in, jnp.float64)
    return jax.tree.unflatten(jax.tree.structure(shapes), [
        value(name, leaf) for name, leaf in trees.named_leaves(shapes).items()])


def narrowest(model, length, channels, axis):
    """(1, H, W, C) of the narrowest strip of a length that the model takes."""
    for width in (1, 4, 16, 32, 64, 80, 96, 128, 224):
        shape = (1, length, width, channels) if axis == 0 else (1, width, length, channels)
        try:
            variable_shapes(model, shape)
        except UserError:
            continue
        return shape
    raise AssertionError("no strip fits")


def strip(model, name, axis, longest):
    """The shape of a strip that is as long as the longest field, and the fields on it."""
    height, width, channels = lookup(name).input_size
    fields = receptive_field(model, (1, height, width, channels))
    needed = max(f.size[axis] + f.stride[axis] for f in fields
                 if not f.sees_all and f.size[axis] <= longest)
    shape = narrowest(model, -(-needed // 64) * 64, channels, axis)
    return shape, receptive_field(model, shape)


@pytest.mark.parametrize(("name", "axis", "layers", "longest"), CASES)
def test_the_pixels_with_a_gradient_are_those_of_the_receptive_field(
        name, axis, layers, longest, monkeypatch):
    monkeypatch.setattr(ops, "max_pool", ops.avg_pool)
    with jax.enable_x64(True), ops.using("xla"):
        model = create_model(name, 10, dtype="float64")
        shape, fields = strip(model, name, axis, longest)
        variables = variable_shapes(model, shape)
        is_followed = [not f.sees_all and f.size[axis] <= longest for f in fields]
        followed = [f for f, follow in zip(fields, is_followed, strict=True) if follow]
        chosen = sorted({round(i) for i in np.linspace(axis, len(followed) - 1, layers)})

        def maps(x):
            with nn.intercept_methods(linear_twin(outputs := [])):
                model.apply(constants(variables), x)
            assert len(outputs) == len(fields)
            found = [y for y, follow in zip(outputs, is_followed, strict=True) if follow]
            return [found[i].mean(-1) for i in chosen]

        @jax.jit
        def gradient(cotangents):
            # Small, so that saturating activations are in their linear part.
            x = jnp.full(shape, 1e-3, jnp.float64)
            return jax.vjp(maps, x)[1](cotangents)[0].sum((0, 2 - axis, 3))

        zeros = [np.zeros(leaf.shape) for leaf in
                 jax.eval_shape(maps, jax.ShapeDtypeStruct(shape, jnp.float64))]
        for k, i in enumerate(chosen):
            size, stride, start = (v[axis] for v in (
                followed[i].size, followed[i].stride, followed[i].start))
            position = max(0, -(start // stride))
            first, last = start + position * stride, start + position * stride + size - 1
            assert first >= 0 and last < shape[axis + 1], "the strip is too short"
            one = np.zeros(zeros[k].shape)
            np.moveaxis(one, axis + 1, 0)[position] = 1
            found = np.flatnonzero(gradient([*zeros[:k], one, *zeros[k + 1:]]))
            assert (found[0], found[-1]) == (first, last), followed[i].name
