"""Gradients where JAX's types say over which devices an array lies: they are those of one device.

In a process of its own, which has two devices.
"""

import json

PROGRAM = """
import json
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from cnnjax import ops
from cnnjax.models.layers import AvgPool, BatchNorm, Conv, Dense, MaxPool


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(BatchNorm(True, name="norm1")(Conv(16, 3, name="conv")(x)))
        x = MaxPool(3, 2, padding=1)(x)
        x = ops.silu(BatchNorm(True, name="norm2")(Conv(16, 3, groups=16, name="depthwise")(x)))
        x = ops.relu(Conv(16, 1, name="pointwise")(x) + Conv(16, 3, groups=4, name="grouped")(x))
        x = ops.tanh(Conv(32, 3, 2, name="strided")(AvgPool(2)(x)))
        return Dense(10, name="head")(x.mean((1, 2)))


def loss(params, x):
    with ops.training():
        logits, _ = Net().apply({"params": params, "batch_stats": stats}, x, mutable="batch_stats")
    return jnp.square(logits - 1).mean()


def parallel(params, x):
    # The statistics are a device's own: the reference has the same halves.
    return jax.grad(lambda params: jax.lax.pmean(loss(params, x), "d"))(params)


x = jax.random.normal(jax.random.key(1), (8, 16, 16, 3))
variables = jax.jit(Net().init)(jax.random.key(0), x)
params, stats = variables["params"], jax.tree.map(np.asarray, variables["batch_stats"])
halves = lambda params: (loss(params, x[:4]) + loss(params, x[4:])) / 2
whole, by_halves = jax.jit(jax.grad(loss))(params, x), jax.jit(jax.grad(halves))(params)
found = {}
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(kind,))
    placed = jax.device_put(x, NamedSharding(mesh, P("d")))
    everywhere = jax.device_put(params, NamedSharding(mesh, P()))
    cases = {"jit": (jax.grad(loss), whole), "shard_map": (jax.shard_map(
        parallel, mesh=mesh, in_specs=(P(), P("d")), out_specs=P()), by_halves)}
    for name, (function, expected) in cases.items():
        got = jax.jit(function)(everywhere, placed)
        difference = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), got, expected)
        found[f"{kind.name}, {name}"] = float(
            optax.global_norm(difference) / optax.global_norm(expected))
    chosen = jax.jit(lambda x: (x, print(ops.formulation(x, params["pointwise"]["kernel"])))[0])
    chosen(jax.device_put(jnp.zeros((8, 9, 9, 16)), NamedSharding(mesh, P("d"))))
print(json.dumps(found))
"""


def test_gradients_are_those_of_one_device_and_the_plain_definition_is_taken_only_there(
        lines_on_devices):
    *chosen, errors = lines_on_devices(PROGRAM, 2)
    errors = json.loads(errors)
    assert list(errors) == ["Auto, jit", "Auto, shard_map", "Explicit, jit", "Explicit, shard_map"]
    assert max(errors.values()) < 1e-4, errors
    assert chosen == ["pointwise", "xla"]
