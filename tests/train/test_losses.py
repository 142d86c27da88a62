import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.train import losses
from cnnjax.types import UserError

LOGITS = 3 * jax.random.normal(jax.random.key(0), (4, 5))
LABELS = jnp.array([0, 3, 3, 1])
MIXED = losses.Targets(LABELS, LABELS[::-1], jnp.array([0.9, 0.3, 0.3, 0.9]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("targets", [losses.Targets(LABELS), MIXED])
def test_softmax_loss_is_the_cross_entropy_with_the_soft_targets(targets, smoothing):
    soft = losses.soft_targets(targets, 5, smoothing)
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(losses.softmax_loss(LOGITS, targets, smoothing),
                               optax.softmax_cross_entropy(LOGITS, soft), rtol=1e-5)


def test_sigmoid_loss_asks_each_class_by_itself():
    p = 1 / (1 + np.exp(-np.asarray(LOGITS, np.float64)))
    y = np.eye(5)[np.asarray(LABELS)]
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(axis=1)
    np.testing.assert_allclose(losses.sigmoid_loss(LOGITS, losses.Targets(LABELS)), expected,
                               rtol=1e-5)


def test_above_the_threshold_both_mixed_labels_are_wholly_there():
    both = np.eye(5)[np.asarray(LABELS)] + np.eye(5)[np.asarray(LABELS)[::-1]] > 0
    expected = optax.sigmoid_binary_cross_entropy(LOGITS, both.astype(np.float32)).mean(axis=1)
    ours = losses.sigmoid_loss(LOGITS, MIXED, smoothing=0.1, threshold=0.2)
    first = np.array([False, True, True, False])  # 0.1 of a label is below it.
    np.testing.assert_allclose(ours[first], expected[first], rtol=1e-6)
    one = np.eye(5)[np.asarray(MIXED.main)].astype(np.float32)
    np.testing.assert_allclose(
        ours[~first], optax.sigmoid_binary_cross_entropy(LOGITS, one).mean(axis=1)[~first],
        rtol=1e-6)


def test_the_main_label_is_the_one_with_the_larger_weight():
    assert (MIXED.main == jnp.array([0, 3, 3, 1])).all()
    assert (losses.Targets(LABELS, LABELS[::-1], jnp.full(4, 0.4)).main == LABELS[::-1]).all()


def test_an_unknown_loss_is_explained():
    with pytest.raises(UserError, match="softmax and sigmoid"):
        losses.loss_of("hinge", LOGITS, MIXED, 0.0, None)


def test_smoothing_moves_mass_of_the_sigmoid_targets_too():
    y = 0.9 * np.eye(5)[np.asarray(LABELS)] + 0.1 / 5
    expected = optax.sigmoid_binary_cross_entropy(LOGITS, y.astype(np.float32)).mean(axis=1)
    np.testing.assert_allclose(losses.sigmoid_loss(LOGITS, losses.Targets(LABELS), 0.1), expected,
                               rtol=1e-5)
