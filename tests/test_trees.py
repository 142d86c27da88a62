"""Names, masks that must match, and digests."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import trees
from cnnjax.types import UserError

TREE = {"head": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)},
        "stem": {"conv": {"kernel": jnp.full((1,), 2.0)}}}


def test_names_join_the_keys_with_slashes():
    assert list(trees.named_leaves(TREE)) == ["head/bias", "head/kernel", "stem/conv/kernel"]


def test_a_mask_selects_whole_names():
    mask = trees.regex_mask(TREE, r".*kernel", "decay")
    assert trees.named_leaves(mask) == {"head/bias": False, "head/kernel": True,
                                        "stem/conv/kernel": True}
    assert not any(trees.named_leaves(trees.regex_mask(TREE, (), "decay")).values())


def test_a_pattern_that_matches_nothing_lists_the_names():
    with pytest.raises(UserError, match=r"decay: 'conv'[\s\S]*stem/conv/kernel"):
        trees.regex_mask(TREE, [".*", "conv"], "decay")


def test_a_broken_pattern_says_so():
    with pytest.raises(UserError, match="not a regular expression"):
        trees.regex_mask(TREE, "(", "decay")


def test_count_is_of_scalars():
    assert trees.count(TREE) == 9


def test_the_digest_is_that_of_the_documented_bytes():
    tree = {"b": np.asarray([1, 2], ">i4"), "a": {"x": jnp.float32(1.5)}}
    expected = hashlib.sha256()
    expected.update(b"a/x\0float32\0()\0" + np.asarray(1.5, "<f4").tobytes())
    expected.update(b"b\0int32\0(2,)\0" + np.asarray([1, 2], "<i4").tobytes())
    assert trees.sha256(tree) == expected.hexdigest()


def test_the_digest_sees_one_bit():
    other = {"w": jnp.asarray([1.0, np.nextafter(np.float32(2), np.float32(3))])}
    assert trees.sha256({"w": jnp.asarray([1.0, 2.0])}) != trees.sha256(other)


def test_parts_of_a_tree_together_are_the_tree():
    tree = {"a": {"x": 1, "y": 2}, "b": {"x": 3}}
    chosen, others = trees.partition(tree, {"a/y", "b/x"})
    assert (chosen, others) == ({"a": {"y": 2}, "b": {"x": 3}}, {"a": {"x": 1}})
    assert trees.merge(chosen, others) == tree and trees.merge(tree, {"a": {"x": 7}})["a"]["x"] == 7


def test_the_digest_goes_by_the_order_of_the_whole_names():
    # "a-b" is before "a/x", though the key "a" is before "a-b".
    tree = {"a": {"x": np.float32(1)}, "a-b": np.float32(2)}
    assert list(trees.named_leaves(tree)) == ["a/x", "a-b"]
    expected = hashlib.sha256()
    for name, value in (("a-b", 2), ("a/x", 1)):
        expected.update(f"{name}\0float32\0()\0".encode() + np.asarray(value, "<f4").tobytes())
    assert trees.sha256(tree) == expected.hexdigest()
