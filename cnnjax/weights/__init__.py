"""Pretrained weights in and out, under the names and in the layouts that other code bases use."""

from cnnjax.weights.load import Pretrained, UnnamedError, load, load_weights
from cnnjax.weights.namings import has_names
from cnnjax.weights.save import save_weights

__all__ = ["Pretrained", "UnnamedError", "has_names", "load", "load_weights", "save_weights"]
