"""The corruptions of ImageNet-C and CIFAR-10-C, made on the fly.

Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", arXiv 1903.12261; the strengths are those of the authors' code
(github.com/hendrycks/robustness). Frost, the fifteenth kind, pastes photographs that are no part
of this package, and is left out. The published data sets went through JPEG files once more.
"""

from cnnjax.data.corruptions.table import COLORED, KINDS, STRENGTHS, corrupt

__all__ = ["COLORED", "KINDS", "STRENGTHS", "corrupt"]
