"""The benchmark's steps: what it compares is the product's step, with and without."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import augmentation


def test_normalising_in_the_step_trains_as_images_that_came_normalised():
    batch, ready = augmentation.make_batches(2, 32, jnp.float32)
    base = augmentation.make_step(ready, jnp.float32, lambda key, images: images, model="lenet5")
    step = augmentation.make_step(batch, jnp.float32, augmentation.pipeline(32, jnp.float32),
                                  model="lenet5")
    np.testing.assert_allclose([step() for _ in range(3)], [base() for _ in range(3)], rtol=1e-5)


def test_a_turn_makes_its_calls_and_the_one_that_compiles_does_not_count():
    calls = []
    times = augmentation.measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
                                 rounds=2, calls=3, clock=time.perf_counter)
    assert "".join(calls) == "aaabbb" * 3
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2}


def test_each_recipe_has_arguments_of_the_products_own_functions():
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.uint8)
    for name, recipe in augmentation.RECIPES.items():
        recipe = dict(recipe)
        mixing = recipe.pop("mix", None)
        assert mixing is None or mixing in augmentation.MIXINGS.values(), name
        if "policy" not in recipe:  # Tracing each of them takes seconds.
            made = jax.eval_shape(augmentation.pipeline(16, jnp.float32, **recipe),
                                  jax.random.key(0), images)
            assert made.shape == (2, 16, 16, 3) and made.dtype == jnp.float32, name
