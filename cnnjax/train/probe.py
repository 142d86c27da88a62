"""What frozen features are worth: nearest neighbours and a linear classifier on them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax.train.features import on_host


def knn_predict(features: np.ndarray, labels: np.ndarray, queries: np.ndarray, *,
                num_classes: int, neighbours: int = 20, temperature: float = 0.07,
                rows: int = 256) -> np.ndarray:
    """Returns the class that the nearest neighbours of each query vote for, int [Q].

    Votes weigh exp(cosine / temperature), as in Wu et al. (arXiv 1805.01978, section 3.4) and DINO
    (arXiv 2104.14294).

    Args:
      features: [N, C], of the training examples.
      labels: int [N], of those.
      queries: [Q, C].
      num_classes: K.
      neighbours: that vote; at most N.
      temperature: see above.
      rows: queries at a time.
    """
    bank, labels = jnp.asarray(_unit(features)), jnp.asarray(labels)
    queries = _unit(queries)
    # The last part is filled up, so that there is one shape to compile.
    padded = np.concatenate([queries, np.zeros((-len(queries) % rows, queries.shape[1]),
                                               queries.dtype)])
    found = on_host(_vote(bank, labels, part, num_classes, neighbours, temperature)
                    for part in padded.reshape(-1, rows, queries.shape[1]))
    return np.concatenate(list(found))[:len(queries)]


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _vote(bank, labels, part, num_classes, neighbours, temperature):
    similarity, near = jax.lax.top_k(part @ bank.T, min(neighbours, bank.shape[0]))
    # Weights are relative to the nearest one's: the same vote, without overflow. It is not taken
    # as [:, :1]: with that slice XLA on a CPU sees no top_k any more, and sorts the whole bank.
    nearest = similarity.max(1, keepdims=True)
    weight = jnp.exp((similarity - nearest) / temperature)
    votes = jax.nn.one_hot(labels[near], num_classes) * weight[..., None]
    return votes.sum(1).argmax(-1)


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnames=("num_classes", "penalty", "steps"))
def fit_linear(features: np.ndarray, labels: np.ndarray, *, num_classes: int,
               penalty: float = 1e-4, steps: int = 200) -> tuple[jax.Array, jax.Array]:
    """Returns the weights [C, K] and biases [K] of a logistic regression, by L-BFGS.

    They minimise mean cross entropy + penalty / 2 · |weights|^2, which is convex, so that neither a
    rate nor a seed is to be chosen.

    Args:
      features: [N, C]; of about unit variance, as `standardized` gives.
      labels: int [N].
      num_classes: K.
      penalty: of the weights; above 0.
      steps: at most; it ends where the gradient's norm is below 1e-5.
    """
    features, labels = jnp.asarray(features, jnp.float32), jnp.asarray(labels)
    optimizer = optax.lbfgs()

    def loss(params):
        logits = features @ params[0] + params[1]
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return entropy + penalty / 2 * jnp.square(params[0]).sum()

    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry):
        params, state, count, _ = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad,
                                          value_fn=loss)
        return optax.apply_updates(params, updates), state, count + 1, optax.global_norm(grad)

    params = jnp.zeros((features.shape[1], num_classes)), jnp.zeros(num_classes)
    start = params, optimizer.init(params), jnp.int32(0), jnp.float32(jnp.inf)
    return jax.lax.while_loop(lambda carry: (carry[2] < steps) & (carry[3] > 1e-5), step, start)[0]


def standardized(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Returns all features less the mean of the training ones, divided by their deviation."""
    mean, std = train.mean(0), train.std(0)
    # A channel that never changes says nothing, and noise in it should not become large.
    return [np.asarray((x - mean) / np.where(std > 1e-6, std, 1), np.float32)
            for x in (train, *others)]


@jax.jit
def predict_linear(weights: jax.Array, biases: jax.Array, features: jax.Array) -> jax.Array:
    """Returns the class of each row: [N, C] -> int [N]."""
    return jnp.argmax(features @ weights + biases, axis=-1)
