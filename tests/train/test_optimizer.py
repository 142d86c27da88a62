"""The update rules against PyTorch's and timm's, and what they decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from cnnjax.train.optimizer import make_optimizer, rate_multipliers
from cnnjax.types import UserError

# Five steps from (1, -2, 3) in float64 with the gradient (0.1, 0.2, 0.3) * w + 0.01 * step and a
# rate of 0.1, made with PyTorch 2.13 (sgd, adam, adamw) and timm 1.0.31 (RMSpropTF, Lars, Lamb).
CASES = {
    "sgd": (dict(momentum=0.9, weight_decay=0.01), [0.840788598, -1.492973311, 1.846761588]),
    "sgd-nesterov": (dict(momentum=0.9, weight_decay=0.01, nesterov=True),
                     [0.796874178, -1.377119903, 1.597181947]),
    "adam": (dict(weight_decay=0.01), [0.500415656, -1.505045547, 2.501127174]),
    "adamw": (dict(weight_decay=0.1), [0.461287473, -1.417979327, 2.364535266]),
    "rmsprop": (dict(b2=0.9, eps=1e-3, momentum=0.9, weight_decay=0.01),
                [0.818852064, -1.441670929, 1.823388234]),
    "lars": (dict(momentum=0.9, weight_decay=0.01),
             [0.999411488, -1.998073667, 2.995521093]),
    "lamb": (dict(eps=1e-6, weight_decay=0.1), [0.178917974, -1.111452629, 2.025617541]),
}


def five_steps(optimizer, params):
    state = optimizer.init(params)
    for t in range(5):
        grads = {"kernel": params["kernel"] * jnp.array([0.1, 0.2, 0.3]) + 0.01 * t}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("case", CASES)
def test_five_steps_equal_the_reference_implementation(case):
    arguments, expected = CASES[case]
    params = {"kernel": jnp.array([1.0, -2.0, 3.0])}
    optimizer = make_optimizer(case.partition("-")[0], lambda step: 0.1, params, **arguments)
    np.testing.assert_allclose(five_steps(optimizer, params)["kernel"], expected, rtol=1e-5)


def test_by_default_only_kernels_decay():
    params = {"conv": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "bn": {"scale": jnp.ones(2)}}
    optimizer = make_optimizer("sgd", lambda step: 1.0, params, momentum=0.0, weight_decay=0.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    assert float(updates["conv"]["kernel"][0]) == -0.5
    assert float(updates["conv"]["bias"][0]) == float(updates["bn"]["scale"][0]) == 0.0


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "lars", "lamb", "muon"])
def test_where_norms_alone_train_no_kernel_need_be_among_them_for_kernels_to_decay(name):
    params = {"conv": {"kernel": jnp.ones((1, 1, 2, 2))}, "norm": {"scale": jnp.full(2, 3.0)}}
    trains = {"norm": params["norm"]}
    zero = jax.tree.map(jnp.zeros_like, trains)
    for decay, expected in ((".*kernel", 0.0), (".*", -1.5)):
        optimizer = make_optimizer(name, lambda step: 1.0, params, momentum=0.0, weight_decay=0.5,
                                   decay=decay, trainable={"norm/scale"})
        updates, _ = optimizer.update(zero, optimizer.init(trains), trains)
        if name in ("sgd", "adamw", "muon") or not expected:  # The others scale the term.
            np.testing.assert_array_equal(updates["norm"]["scale"], [expected] * 2)
        assert jax.tree.structure(updates) == jax.tree.structure(trains)
    with pytest.raises(UserError, match=r"(?s)optimizer\.decay: 'scale' .* conv/kernel"):
        make_optimizer(name, lambda step: 1.0, params, decay="scale", trainable={"norm/scale"})


def test_clipping_bounds_the_global_norm():
    params = {"kernel": jnp.zeros(2)}
    optimizer = make_optimizer("sgd", lambda step: 1.0, params, momentum=0.0, clip_norm=1.0)
    updates, _ = optimizer.update({"kernel": jnp.array([3.0, 4.0])}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], [-0.6, -0.8], rtol=1e-6)


def test_an_unknown_name_or_a_pattern_without_match_is_the_users_error():
    params = {"kernel": jnp.zeros(2)}
    with pytest.raises(UserError, match="Did you mean 'adam'"):
        make_optimizer("adan", lambda step: 1.0, params)
    with pytest.raises(UserError, match=r"optimizer\.decay"):
        make_optimizer("sgd", lambda step: 1.0, params, decay="conv.*")


PARAMS = {"stem": {"kernel": jnp.ones(2)}, "stage1": {"kernel": jnp.ones(2)},
          "head": {"kernel": jnp.ones(2), "bias": jnp.ones(1)}}
HEIGHTS = {"stem/kernel": 2, "stage1/kernel": 1, "head/kernel": 0, "head/bias": 0}


def test_the_rate_falls_with_the_distance_from_the_output_and_the_first_pattern_counts():
    found = rate_multipliers(PARAMS, [("head/kernel", 10.0), (".*kernel", 3.0)], HEIGHTS, 0.5)
    assert found == {"stem": {"kernel": 0.75}, "stage1": {"kernel": 1.5},
                     "head": {"kernel": 10.0, "bias": 1.0}}
    assert rate_multipliers(PARAMS, [], HEIGHTS, 1.0) is None


def test_a_rate_pattern_that_matches_nothing_lists_the_names():
    with pytest.raises(UserError, match="(?s)lr_multipliers.*stage2.*head/bias"):
        rate_multipliers(PARAMS, [("stage2/.*", 0.1)], HEIGHTS, 1.0)


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop", "lars"])
def test_a_multiplier_is_a_rate_of_its_own(name):
    params = {"a": {"kernel": jnp.array([1.0, 2.0])}, "b": {"kernel": jnp.array([1.0, 2.0])}}
    multipliers = {"a": {"kernel": 0.25}, "b": {"kernel": 1.0}}
    steps = {}
    for rate, numbers in ((0.1, multipliers), (0.025, None)):
        optimizer = make_optimizer(name, lambda _, r=rate: r, params, multipliers=numbers)
        grads, now, state = jax.tree.map(lambda w: 0.1 * w + 0.1, params), params, None
        state = optimizer.init(params)
        for _ in range(3):
            updates, state = optimizer.update(grads, state, now)
            now = optax.apply_updates(now, updates)
        steps[rate] = now
    np.testing.assert_allclose(steps[0.1]["a"]["kernel"], steps[0.025]["a"]["kernel"], rtol=1e-6)
    assert not np.allclose(steps[0.1]["a"]["kernel"], steps[0.1]["b"]["kernel"])


def test_muon_is_optax_s_for_convolutions_and_adamw_for_the_rest():
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 4, 6), "bias": (6,), "depthwise": (3, 3, 1, 6), "head": (6, 3)}
    params, *gradients = ({name: jnp.asarray(rng.standard_normal(shape), jnp.float32)
                           for name, shape in shapes.items()} for _ in range(4))

    def three_steps(rule, names):
        at = {name: params[name] for name in names}
        state = rule.init(at)
        for gradient in gradients:
            updates, state = rule.update({name: gradient[name] for name in names}, state, at)
            at = optax.apply_updates(at, updates)
        return at

    ours = three_steps(make_optimizer("muon", lambda step: 0.02, params, momentum=0.95,
                                      nesterov=True, weight_decay=0.1, decay=".*"), shapes)
    conv = contrib.muon(0.02, consistent_rms=0.2, weight_decay=0.1, muon_weight_dimension_numbers={
        "conv": contrib.MuonDimensionNumbers((0, 1, 2), 3)})
    others = optax.adamw(0.02, weight_decay=0.1)
    expected = three_steps(conv, ["conv"]) | three_steps(others, ["bias", "depthwise", "head"])
    for name in shapes:
        np.testing.assert_allclose(ours[name], expected[name], rtol=1e-4, err_msg=name)


def test_clipping_comes_before_momentum_and_weight_decay():
    params = {"kernel": jnp.array([10.0, 0.0])}
    optimizer = make_optimizer("sgd", lambda step: 1.0, params, momentum=0.5, weight_decay=0.1,
                               clip_norm=1.0)
    state, found = optimizer.init(params), []
    for _ in range(2):
        updates, state = optimizer.update({"kernel": jnp.array([0.0, 4.0])}, state, params)
        found.append(updates["kernel"])
    # Clipped to (0, 1), decay makes it (1, 1), and then half of the step before comes along.
    np.testing.assert_allclose(found, [[-1, -1], [-1.5, -1.5]], rtol=1e-6)


@pytest.mark.parametrize(("name", "reference"), [
    ("lars", optax.sgd(0.1, momentum=0.9, nesterov=True)), ("lamb", optax.adam(0.1, eps=1e-6))])
def test_what_does_not_decay_takes_plain_steps_without_a_trust_ratio(name, reference):
    kernel, bias = jnp.array([1.0, -2.0, 3.0]), jnp.array([0.5, 2.0])
    optimizer = make_optimizer(name, lambda step: 0.1, {"kernel": kernel, "bias": bias},
                               nesterov=True, eps=1e-6, weight_decay=0.1)

    def three_steps(rule, params):
        state = rule.init(params)
        for t in range(3):
            grads = jax.tree.map(lambda w, t=t: 0.1 * w + 0.1 * t, params)
            updates, state = rule.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    found = three_steps(optimizer, {"kernel": kernel, "bias": bias})
    np.testing.assert_allclose(found["bias"], three_steps(reference, bias), rtol=1e-6)
