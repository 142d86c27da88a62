"""How a convolution, a pool or a normalisation is computed on this backend.

Each operation is one function of arrays in NHWC layout. Behind it stand several formulations of
the same sum, one small file each with its maths; `conv.FORMULATIONS` says which convolution takes
which. On CPU some are an order of magnitude faster than XLA's own, on GPU a few are faster; on TPU
all but the batch norm's are XLA's.

    ops.conv2d(x, kernel, stride=1, padding="SAME", groups=1)
    with ops.using("xla"): …      # the plain definitions, to compare with
    ops.set_default("xla")        # the same for a whole program
    with ops.without("taps"): …   # all but some, to see what they are worth
    with ops.training(): …        # the forward pass of a loss: a little noise does no harm
    ops.set_products("bfloat16")  # factors of products in training, for CPUs that have it
"""

from cnnjax.ops.batch_norm import batch_norm
from cnnjax.ops.conv import conv2d, formulation, names, without
from cnnjax.ops.pool import avg_pool, max_pool
from cnnjax.ops.product import dense
from cnnjax.ops.relu import relu
from cnnjax.ops.silu import silu
from cnnjax.ops.switch import products, set_default, set_products, settings, training, using
from cnnjax.ops.tanh import tanh

__all__ = ["avg_pool", "batch_norm", "conv2d", "dense", "formulation", "max_pool", "names",
           "products", "relu", "set_default", "set_products", "settings", "silu", "tanh",
           "training", "using", "without"]
