"""Convolutions of a batch that is sharded over devices: no image leaves its device.

In a process of its own, which has four devices.
"""

import json

PROGRAM = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from cnnjax import ops
from cnnjax.ops import columns, winograd

columns.PIXELS = winograd.PIXELS = 30
mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
devices, everywhere = NamedSharding(mesh, P("d")), NamedSharding(mesh, P())
found = []
for images, size, window, stride, products in (
        (4, 8, 3, 1, "float32"), (20, 6, 5, 1, "float32"), (20, 14, 3, 2, "bfloat16"),
        (12, 7, 1, 1, "bfloat16")):
    def gradients(x, kernel):
        def loss(x, kernel):
            with ops.training(), ops.products(products):
                return jnp.square(ops.conv2d(x, kernel, stride, window // 2)).mean()
        return jax.grad(loss, (0, 1))(x, kernel)

    x = jax.random.normal(jax.random.key(0), (images, size, size, 32))
    kernel = jax.random.normal(jax.random.key(1), (window, window, 32, 32))
    with ops.training(), ops.products(products):
        name = ops.formulation(x, kernel, stride, window // 2)
    program = jax.jit(gradients, in_shardings=(devices, everywhere),
                      out_shardings=(devices, everywhere)).lower(x, kernel).compile()
    text = program.as_text()
    moves = [word for word in ("all-gather", "all-to-all", "collective-permute") if word in text]
    got = program(jax.device_put(x, devices), jax.device_put(kernel, everywhere))
    with ops.using("xla"):
        expected = jax.jit(gradients)(x, kernel)
    errors = [float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b))
              for a, b in zip(got, expected)]
    found.append((name, products, moves, max(errors)))
print(json.dumps(found))
"""


def test_no_image_of_a_sharded_batch_leaves_its_device(lines_on_devices):
    found = json.loads(lines_on_devices(PROGRAM, 4)[-1])
    assert [row[0] for row in found] == ["winograd", "winograd", "columns", "pointwise"]
    for name, products, moves, error in found:
        assert not moves, (name, moves)
        assert error < (1e-5 if products == "float32" else 2e-2), (name, error)
