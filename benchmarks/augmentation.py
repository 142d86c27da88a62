"""What augmentation on the device costs beside a training step of ResNet-18 at 224 pixels.

    python -m benchmarks.augmentation

Each recipe's `augment.pipeline` runs as a call of its own, from uint8 to normalised floats, in one
process and in alternation with the step that only normalises. The share is their ratio; the cost
within the step is at most that, because there XLA can fuse it with its neighbours. The last rows
are the two ways of applying a policy, of which `rows.for_each_image` takes one by the backend.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax import models
from cnnjax.data import augment
from cnnjax.jobs import backend
from cnnjax.train import state as state_lib
from cnnjax.train import step as step_lib

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICIES = {name: augment.make_policy(name, method="bilinear") for name in augment.POLICIES}
RECIPES = {
    "normalise": {},
    "flip, pad and crop": dict(flip=True, pad_crop=28),
    "resized crop, flip": dict(flip=True, resized_crop=(0.08, 1.0)),
    "jitter": dict(jitter=(0.4, 0.4, 0.4, 0.1)),
    **{name: dict(policy=policy) for name, policy in POLICIES.items()},
    "flip, trivial_augment_wide, erase": dict(
        flip=True, policy=POLICIES["trivial_augment_wide"], erase=0.1),
}


def pipeline(size: int, dtype: jnp.dtype, **recipe):
    """Returns (key, images) -> images."""
    return functools.partial(augment.pipeline, size=(size, size), mean=MEAN, std=STD, dtype=dtype,
                             **recipe)


def make_step(size: int, batch: dict, dtype: jnp.dtype):
    """Returns a function of no arguments that makes one training step of ResNet-18."""
    module = models.create_model("resnet18", num_classes=1000, dtype=dtype)
    task = step_lib.Task(module=module, optimizer=optax.sgd(0.1, momentum=0.9), seed=0,
                         augment=pipeline(size, dtype))
    held = [jax.jit(lambda: state_lib.create_state(module, task.optimizer, 0,
                                                   (1, size, size, 3)))()]
    call = jax.jit(functools.partial(step_lib.train_step, task), donate_argnums=0)

    def step():
        held[0], loss = call(held[0], batch)
        return loss

    return step


def measure(cases: dict, rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Returns the seconds of each call, after one that compiles."""
    seconds = {name: [] for name in cases}
    for i in range(rounds + 1):
        for name, call in cases.items():
            start = clock()
            jax.block_until_ready(call())
            if i:
                seconds[name].append(clock() - start)
    return seconds


def main() -> None:
    """Prints a Markdown table: milliseconds an image, medians with the least and the most."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--cpu_time", action="store_true",
                        help="CPU time instead of wall time, for a machine with other work")
    arguments = parser.parse_args()
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    rng = np.random.default_rng(0)
    shape = (arguments.batch, arguments.size, arguments.size, 3)
    batch = {"image": jnp.asarray(rng.integers(0, 256, shape, np.uint8)),
             "label": jnp.asarray(rng.integers(0, 1000, arguments.batch), jnp.int32)}
    cases, key = {"step of ResNet-18": make_step(arguments.size, batch, dtype)}, jax.random.key(0)
    for name, recipe in RECIPES.items():
        cases[name] = functools.partial(jax.jit(pipeline(arguments.size, dtype, **recipe)), key,
                                        batch["image"])
    for form, platform in (("one by one", "cpu"), ("together", "gpu")):
        with mock.patch.object(jax, "default_backend", lambda platform=platform: platform):
            # A function of its own, or the second form would be the first one's cached trace.
            policy = functools.partial(POLICIES["rand_augment"])
            compiled = jax.jit(policy).lower(key, batch["image"]).compile()
        cases[f"rand_augment, {form}"] = functools.partial(compiled, key, batch["image"])
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    seconds = measure(cases, arguments.rounds, clock)
    print(f"jax {backend.versions()['jax']}, {backend.describe_devices(jax.devices())}, "
          f"{os.cpu_count()} CPU cores, {arguments.size} px, batch {arguments.batch}, "
          f"{arguments.rounds} rounds, {clock.__name__}\n")
    print("| call | ms an image | share of the step |\n|---|---|---|")
    for name, values in seconds.items():
        each = [1e3 * value / arguments.batch for value in values]
        shares = [a / b for a, b in zip(values, seconds["step of ResNet-18"], strict=True)]
        print(f"| {name} | {statistics.median(each):.3f} ({min(each):.3f} to {max(each):.3f}) | "
              f"{statistics.median(shares):.1%} |")


if __name__ == "__main__":
    main()
