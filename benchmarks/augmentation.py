"""What augmentation on the device adds to a training step of ResNet-18 at 224 pixels.

    python -m benchmarks.augmentation

A case is the product's jitted training step with that recipe's augmentation in it. It takes turns
with a step without any, whose images are floats that are normalised already: A B, A B, …, in one
process. The cost is the ratio of the two in the same turn, less one; it has its median over the
turns, with the least and the most. On GPUs the model computes in bfloat16.

`--alone` times `augment.pipeline` as a call of its own instead. Its share of a step is about its
cost there, where XLA can fuse it with its neighbours and may do so badly, and it spares the
compiling of a step a recipe. Its last rows are the two ways of applying a policy, of which
`rows.for_all_images` takes one by the backend.
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
from cnnjax.train import state as state_lib
from cnnjax.train import step as step_lib

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICIES = {name: augment.make_policy(name, method="bilinear") for name in augment.POLICIES}
MIXINGS = {"mixup": dict(mixup=0.2), "cutmix": dict(cutmix=1.0),
           "mixup or cutmix": dict(mixup=0.2, cutmix=1.0)}
RECIPES = {
    "normalise": {},
    "normalise, flip": dict(flip=True),
    "flip, pad and crop": dict(flip=True, pad_crop=28),
    "flip, resized crop": dict(flip=True, resized_crop=(0.08, 1.0)),
    "flip, jitter": dict(flip=True, jitter=(0.4, 0.4, 0.4, 0.1)),
    "flip, erase": dict(flip=True, erase=0.25),
    **{f"flip, {name}": dict(flip=True, policy=policy) for name, policy in POLICIES.items()},
    **{f"flip, {name}": dict(flip=True, mix=mixing) for name, mixing in MIXINGS.items()},
    "flip, trivial_augment_wide, erase, mixup or cutmix": dict(
        flip=True, policy=POLICIES["trivial_augment_wide"], erase=0.1,
        mix=MIXINGS["mixup or cutmix"]),
    "flip, rand_augment, erase, mixup or cutmix": dict(
        flip=True, policy=POLICIES["rand_augment"], erase=0.25, mix=MIXINGS["mixup or cutmix"]),
}


def pipeline(size: int, dtype: jnp.dtype, **recipe):
    """Returns (key, images) -> images."""
    return functools.partial(augment.pipeline, size=(size, size), mean=MEAN, std=STD, dtype=dtype,
                             **recipe)


def make_step(batch: dict, dtype: jnp.dtype, augmentation: step_lib.Augment,
              mix: dict | None = None, model: str = "resnet18") -> Callable[[], jax.Array]:
    """Returns a function of no arguments that makes one training step and returns the loss."""
    module = models.create_model(model, num_classes=1000, dtype=dtype)
    task = step_lib.Task(module=module, optimizer=optax.sgd(0.1, momentum=0.9),
                         augment=augmentation,
                         mix=functools.partial(augment.mix, **mix) if mix else None)
    shape = (1, *batch["image"].shape[1:])
    key = jax.random.key(0)
    held = [jax.jit(lambda: state_lib.create_state(module, task.optimizer, key, shape))()]
    call = jax.jit(functools.partial(step_lib.train_step, task), donate_argnums=0)

    def step():
        held[0], loss = call(held[0], batch | {"key": key})
        return loss

    return step


def make_batches(rows: int, size: int, dtype: jnp.dtype) -> tuple[dict, dict]:
    """Returns a batch of uint8 images, and the same one normalised."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (rows, size, size, 3), np.uint8))
    labels = jnp.asarray(rng.integers(0, 1000, rows), jnp.int32)
    return ({"image": images, "label": labels},
            {"image": augment.normalize(images, MEAN, STD, dtype), "label": labels})


def measure(cases: dict, rounds: int, calls: int, clock: Callable[[], float]
            ) -> dict[str, list[float]]:
    """Returns the seconds of a call by turns, each of `calls`, after one turn that compiles."""
    seconds = {name: [] for name in cases}
    for i in range(rounds + 1):
        for name, call in cases.items():
            start = clock()
            for _ in range(calls):
                result = call()
            jax.block_until_ready(result)
            if i:
                seconds[name].append((clock() - start) / calls)
    return seconds


def spread(values: list[float], form: str) -> str:
    """Returns "median (least to most)"."""
    low, middle, high = (format(f(values), form) for f in (min, statistics.median, max))
    return f"{middle} ({low} to {high})"


def print_steps(arguments: argparse.Namespace, dtype: jnp.dtype, clock) -> None:
    """Prints a row a recipe: the step with it, and what it costs over the one without."""
    batch, ready = make_batches(arguments.batch, arguments.size, dtype)
    base = make_step(ready, dtype, lambda key, images: images, model=arguments.model)
    print("| recipe | step with it, ms | without, ms | cost |\n|---|---|---|---|")
    for name in arguments.recipes:
        recipe = dict(RECIPES[name])
        mixing = recipe.pop("mix", None)
        step = make_step(batch, dtype, pipeline(arguments.size, dtype, **recipe), mixing,
                         arguments.model)
        times = measure({"with": step, "without": base}, arguments.rounds, arguments.calls, clock)
        cost = [a / b - 1 for a, b in zip(times["with"], times["without"], strict=True)]
        cells = [spread([1e3 * t for t in times[side]], ".2f") for side in ("with", "without")]
        print(f"| {name} | {cells[0]} | {cells[1]} | {spread(cost, '.1%')} |", flush=True)


def print_alone(arguments: argparse.Namespace, dtype: jnp.dtype, clock) -> None:
    """Prints a row a recipe: its calls alone, beside the step that only normalises."""
    batch, _ = make_batches(arguments.batch, arguments.size, dtype)
    key, base = jax.random.key(0), f"step of {arguments.model}"
    cases = {base: make_step(batch, dtype, pipeline(arguments.size, dtype), model=arguments.model)}
    for name in arguments.recipes:
        if "mix" not in RECIPES[name]:
            call = jax.jit(pipeline(arguments.size, dtype, **RECIPES[name]))
            cases[name] = functools.partial(call, key, batch["image"])
    for form, platform in (("one by one", "cpu"), ("together", "gpu")):
        with mock.patch.object(jax, "default_backend", lambda platform=platform: platform):
            # A function of its own, or the second form would be the first one's cached trace.
            policy = functools.partial(POLICIES["rand_augment"])
            compiled = jax.jit(policy).lower(key, batch["image"]).compile()
        cases[f"rand_augment, {form}"] = functools.partial(compiled, key, batch["image"])
    seconds = measure(cases, arguments.rounds, arguments.calls, clock)
    print("| call | ms an image | share of the step |\n|---|---|---|")
    for name, values in seconds.items():
        shares = [a / b for a, b in zip(values, seconds[base], strict=True)]
        each = [1e3 * value / arguments.batch for value in values]
        print(f"| {name} | {spread(each, '.4f')} | {statistics.median(shares):.1%} |")


def main() -> None:
    """Prints a Markdown table, row by row."""
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1 if on_cpu else 20,
                        help="steps of a turn, waited for at its end")
    parser.add_argument("--batch", type=int, default=16 if on_cpu else 256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"],
                        default="float32" if on_cpu else "bfloat16")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), choices=list(RECIPES),
                        metavar="RECIPE", help=f"of {', '.join(map(repr, RECIPES))}")
    parser.add_argument("--alone", action="store_true", help="the augmentation by itself")
    parser.add_argument("--cpu_time", action="store_true",
                        help="CPU time instead of wall time, for a machine with other work")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} {device.device_kind}, {os.cpu_count()} CPU "
          f"cores, {arguments.model} {arguments.size} px, batch {arguments.batch}, "
          f"{arguments.dtype}, {arguments.rounds} turns of {arguments.calls}, {clock.__name__}\n",
          flush=True)
    (print_alone if arguments.alone else print_steps)(arguments, jnp.dtype(arguments.dtype), clock)


if __name__ == "__main__":
    main()
