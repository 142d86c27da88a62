"""Gradients where JAX's types say over which devices an array lies: they are those of one device.

In a process of its own, which has two devices.
"""

import json
import os
import subprocess
import sys

import pytest

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


@pytest.fixture(scope="module")
def lines(root):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True,
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
@pytest.mark.parametrize("how", ["jit", "shard_map"])
def test_gradients_are_those_of_one_device(lines, kind, how):
    assert json.loads(lines[-1])[f"{kind}, {how}"] < 1e-4


def test_only_there_the_plain_definition_is_taken(lines):
    assert lines[:2] == ["pointwise", "xla"]
