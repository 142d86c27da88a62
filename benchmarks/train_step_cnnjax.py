"""One side of `benchmarks.train_step`: a training step of this code. Prints a line of JSON.

    python -m benchmarks.train_step_cnnjax resnet18:32:128 --ops=xla --steps=10
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax import models, ops
from cnnjax.models.create import lookup, model_arguments
from cnnjax.train import step as step_lib
from cnnjax.train.state import create_state


def make_step(name: str, size: int, batch: int, classes: int, dtype: str):
    """Returns the product's jitted call, and its arguments: one batch that lies on the device."""
    overrides = {"dtype": dtype}
    if "aux_logits" in model_arguments(name):
        overrides["aux_logits"] = False
    module = models.create_model(name, num_classes=classes, **overrides)
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(1e-3, momentum=0.9))
    task = step_lib.Task(module, optimizer, augment=lambda key, images: images)
    key = jax.random.key(0)
    rng, channels = np.random.default_rng(0), lookup(name).input_size[2]
    batches = {"image": rng.standard_normal((1, batch, size, size, channels)).astype(np.float32),
               "label": rng.integers(0, classes, (1, batch)).astype(np.int32)}
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))
    state, batches = jax.device_put(
        (jax.jit(lambda: create_state(module, optimizer, key, (1, size, size, channels)))(),
         jax.tree.map(jnp.asarray, batches)), step_lib.replicated(mesh))
    call = step_lib.make_train_call(task, lambda constants, batch: batch | {"key": key}, mesh)
    return call, state, batches


def peak_mb() -> float:
    """The most memory that was in use: of the device, or on CPU of the process."""
    if jax.default_backend() == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20


def main() -> None:
    """Times the first step (tracing and compiling included), then some more.

    On CPU one by one; on an accelerator ten at a time, as a training loop leaves them to it.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help="model:pixels:batch size")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--ops", default="auto", help="'xla' is what plain Flax gives")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--products", default="float32", help="what matrices are multiplied in")
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    name, size, batch = arguments.case.split(":")
    ops.set_default(arguments.ops)
    ops.set_products(arguments.products)
    call, state, batches = make_step(name, int(size), int(batch), arguments.classes,
                                     arguments.dtype)
    seconds, group = [], 10 if jax.default_backend() != "cpu" else 1
    for number in range(arguments.steps + 3):
        start = time.perf_counter()
        for _ in range(group if number else 1):
            state, losses = call(state, {}, batches)
        jax.block_until_ready(losses)
        seconds.append((time.perf_counter() - start) / (group if number else 1))
    print(json.dumps({
        "ms": statistics.median(seconds[3:]) * 1e3, "first_s": seconds[0], "peak_mb": peak_mb(),
        "loss": float(losses[0]),
        "version": f"jax {jax.__version__}", "device": jax.devices()[0].device_kind}))


if __name__ == "__main__":
    main()
