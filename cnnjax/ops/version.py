"""Which XLA:CPU this is: the fastest way to compute the same thing differs."""

import jax

# It multiplies rows, x w and dy w^T, by YNNPACK, but columns, x^T dy, by Eigen; before that all by
# Eigen. What else differs was only measured; it stands where it is used.
SINCE_0_11 = jax.__version_info__ >= (0, 11)
