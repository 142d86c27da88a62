"""The optimiser, built from plain arguments as one optax chain."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import optax
from optax import contrib

from cnnjax import trees
from cnnjax.types import UserError, did_you_mean

PyTree = Any


def make_optimizer(name: str, learning_rate: optax.Schedule, params: PyTree, *,
                   momentum: float = 0.9, nesterov: bool = False, b1: float = 0.9,
                   b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
                   decay: str | Sequence[str] = (r".*kernel",),
                   clip_norm: float = 0.0, multipliers: PyTree | None = None,
                   trainable: Collection[str] | None = None) -> optax.GradientTransformation:
    """Returns clip → (L2) → the named rule → −learning rate → multipliers, as one transformation.

    Weight decay of sgd, adam and rmsprop is an L2 term of the gradient, as in the papers of the
    nets trained with them and in PyTorch; that of adamw, lars and lamb is the rule's own
    (decoupled for adamw, arXiv 1711.05101; inside the trust ratio for lars, arXiv 1708.03888, and
    lamb, arXiv 1904.00962). LARS and LAMB scale by the trust ratio only what decays, so that norms
    and biases take plain steps. muon (decoupled decay) orthogonalises the steps of convolutions and
    is adamw for everything else.

    Args:
      name: sgd, adam, adamw, rmsprop, lars, lamb or muon.
      learning_rate: step -> rate.
      params: all parameters, or their shapes, from whose names `decay` selects.
      momentum: of sgd and muon's convolutions, and of rmsprop and lars, whose comes last of all.
      nesterov: look-ahead momentum, for the same four.
      b1: decay of the first moment (adam, adamw, lamb, the rest of muon).
      b2: decay of the second moment (the same, and rmsprop).
      eps: added to the root of the second moment, for rmsprop inside it.
      weight_decay: strength; 0 is off.
      decay: regular expressions of the whole names of the parameters that decay. The default,
        every kernel, leaves out biases and the scales of norms.
      clip_norm: largest global norm of the gradient; 0 is off.
      multipliers: of the learning rate, a number for each parameter that trains, as
        `rate_multipliers` gives.
      trainable: names of the parameters that train, of which the transformation is; None for all.

    Raises:
      UserError: for an unknown name, or a pattern that matches no parameter.
    """
    mask = trees.regex_mask(params, decay, "optimizer.decay")
    if trainable is not None:
        params, mask = (trees.partition(tree, trainable)[0] for tree in (params, mask))
    l2, velocity = _l2(weight_decay, mask), _momentum(momentum, nesterov)
    adam = optax.scale_by_adam(b1, b2, eps)
    rules = {
        "sgd": [l2, velocity],
        "adam": [l2, adam],
        "adamw": [adam, l2],
        # As in TensorFlow, for which the recipes of Inception, MobileNet and EfficientNet are.
        "rmsprop": [l2, optax.scale_by_rms(b2, eps, initial_scale=1.0, eps_in_sqrt=True)],
        "lars": [l2, optax.masked(optax.scale_by_trust_ratio(trust_coefficient=1e-3), mask)],
        "lamb": [adam, l2, optax.masked(optax.scale_by_trust_ratio(), mask)],
        "muon": [_muon(params, momentum, nesterov, adam), l2],
    }
    if name not in rules:
        raise UserError(f"There is no optimizer {name!r}.{did_you_mean(name, rules)} "
                        f"There are {', '.join(rules)}.")
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    # LARS (its paper, algorithm 1) and TensorFlow's RMSProp keep their momentum over steps that
    # the rate has already scaled, so that a drop of the rate does not shrink what came before.
    last = [velocity] if name in ("lars", "rmsprop") else []
    scale = [] if multipliers is None else [_times(multipliers)]
    return optax.chain(*clip, *rules[name], optax.scale_by_learning_rate(learning_rate), *scale,
                       *last)


def rate_multipliers(params: PyTree, patterns: Sequence[tuple[str, float]],
                     heights: Mapping[str, int], layer_decay: float) -> PyTree | None:
    """Returns what the learning rate of each parameter is multiplied by, or None for 1 everywhere.

    That is the number of the first pattern that matches, 1 without one, times
    layer_decay^(groups of layers up to the output): layer-wise decay, from ULMFiT's
    discriminative rates (arXiv 1801.06146, section 3.2).

    Args:
      params: parameters that train, or their shapes.
      patterns: (regular expression of whole names, number).
      heights: of each name, 0 for the head (`models.depth.heights`).
      layer_decay: from 0 to 1; 1 is off.

    Raises:
      UserError: if a pattern matches no parameter that trains.
    """
    if layer_decay == 1 and not patterns:
        return None
    numbers = jax.tree.map(lambda _: 1.0, params)
    for pattern, number in reversed(patterns):
        mask = trees.regex_mask(params, pattern, "optimizer.lr_multipliers")
        numbers = jax.tree.map(lambda old, hit, new=number: new if hit else old, numbers, mask)
    by_name = trees.named_leaves(numbers)
    scaled = [number * layer_decay ** heights[name] for name, number in by_name.items()]
    return jax.tree.unflatten(jax.tree.structure(numbers), scaled)


def _l2(weight_decay: float, mask: PyTree) -> optax.GradientTransformation:
    if not weight_decay:
        return optax.identity()
    return optax.add_decayed_weights(weight_decay, mask)


def _times(multipliers: PyTree) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u, m: u * m, updates,
                                                           multipliers))


def _momentum(momentum: float, nesterov: bool) -> optax.GradientTransformation:
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


# The steps of muon have the root mean square that those of adamw typically have (arXiv 2502.16982,
# section 2.2), so that both take the same rate.
_ADAM_RMS = 0.2


def _muon(params: PyTree, momentum: float, nesterov: bool,
          others: optax.GradientTransformation) -> optax.GradientTransformation:
    """Muon (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024).

    The momentum of a convolution's kernel (h, w, C, D), read as a matrix of (h w C, D), is replaced
    by the nearest matrix with orthonormal rows or columns. Kernels of one input channel, depthwise
    or of a grey image, are no such matrix, and the dense layers of a CNN are its heads, for which
    the authors advise against it: they take `others`, as norms and biases do.
    """
    def dimensions(tree):
        return jax.tree.map(lambda _: contrib.MuonDimensionNumbers((0, 1, 2), 3), tree)

    def as_large_as_adams(update):
        # The root mean square of an orthonormal (n, m) is 1 / sqrt(max(n, m)).
        outputs = update.shape[3]
        return update * (_ADAM_RMS * math.sqrt(max(update.size // outputs, outputs)))

    labels = jax.tree.map(lambda p: "muon" if p.ndim == 4 and p.shape[2] > 1 else "others", params)
    return optax.partition({"others": others, "muon": optax.chain(
        contrib.scale_by_muon(beta=momentum, nesterov=nesterov,
                              weight_dimension_numbers=dimensions),
        optax.stateless(lambda updates, _: jax.tree.map(as_large_as_adams, updates)))}, labels)
