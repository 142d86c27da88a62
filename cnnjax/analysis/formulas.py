"""The arithmetic of convolutional networks, one formula a function."""

from __future__ import annotations

import numbers
from collections.abc import Sequence

from cnnjax.analysis.spans import Span
from cnnjax.types import UserError


def conv_output_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """Returns how many positions a convolution or a pool has along one axis of a map.

        floor((I - K + 2 P) / S) + 1

    LeNet-5's four maps, AlexNet's first one (torchvision's padding of 2), and a 3x3 convolution
    that keeps the size:

    >>> conv_output_size(28, kernel=5, padding=2), conv_output_size(28, kernel=2, stride=2)
    (28, 14)
    >>> conv_output_size(14, kernel=5), conv_output_size(10, kernel=2, stride=2)
    (10, 5)
    >>> conv_output_size(224, kernel=11, stride=4, padding=2)
    55
    >>> conv_output_size(224, kernel=3, padding=1)
    224

    Args:
      size: I, the map's height or width in pixels.
      kernel: K, that of the kernel or the pool's window.
      stride: S, the step between two positions.
      padding: P, pixels added on each of the two sides.

    Raises:
      UserError: if an argument is no such number, or the kernel doesn't fit.
    """
    _check("conv_output_size", 1, size=size, kernel=kernel, stride=stride)
    _check("conv_output_size", 0, padding=padding)
    if kernel > size + 2 * padding:
        raise UserError(f"conv_output_size: a kernel of {kernel} does not fit {size} pixels with "
                        f"{padding} more on each side; pad by {-(-(kernel - size) // 2)}.")
    return (size - kernel + 2 * padding) // stride + 1


def conv_params(kernel: int | Sequence[int], in_channels: int, out_channels: int,
                bias: bool = True, groups: int = 1) -> int:
    """Returns the number of parameters of a convolution.

        (K K C_in / groups + 1) C_out

    LeNet-5's first layer, and its second one with full connections:

    >>> conv_params(5, in_channels=1, out_channels=6)
    156
    >>> conv_params(5, in_channels=6, out_channels=16)
    2416

    The three convolutions of the textbook CNN:

    >>> conv_params(3, 3, 32), conv_params(3, 32, 64), conv_params(3, 64, 128)
    (896, 18496, 73856)

    VGG's argument (arXiv 1409.1556, section 2.3): two 3x3 convolutions see what one 5x5 sees, with
    18 C^2 weights instead of 25 C^2, and three what one 7x7 sees, with 27 C^2 instead of 49 C^2.

    >>> stack_field([3, 3]), stack_field([3, 3, 3])
    (5, 7)
    >>> C = 64
    >>> 2 * conv_params(3, C, C, bias=False) == 18 * C**2
    True
    >>> conv_params(5, C, C, bias=False) == 25 * C**2
    True
    >>> 3 * conv_params(3, C, C, bias=False) == 27 * C**2
    True
    >>> conv_params(7, C, C, bias=False) == 49 * C**2
    True

    Args:
      kernel: K in pixels, one number or (height, width).
      in_channels: C_in.
      out_channels: C_out.
      bias: whether there is one a channel; a convolution before a norm has none.
      groups: into how many groups that don't see each other the channels fall; C_in of them is a
        depthwise convolution.

    Raises:
      UserError: if an argument is no such number, or the groups don't divide the channels.
    """
    height, width = (kernel, kernel) if isinstance(kernel, numbers.Integral) else kernel
    _check("conv_params", 1, kernel_height=height, kernel_width=width, in_channels=in_channels,
           out_channels=out_channels, groups=groups)
    if in_channels % groups or out_channels % groups:
        raise UserError(f"conv_params: groups={groups} must divide in_channels={in_channels} and "
                        f"out_channels={out_channels}.")
    return (height * width * in_channels // groups + bool(bias)) * out_channels


def dense_params(inputs: int, outputs: int, bias: bool = True) -> int:
    """Returns the number of parameters of a dense layer.

        (inputs + 1) outputs

    Why images want convolutions: a dense layer of 1,000 units on 224 x 224 colour pixels has 150
    million weights, and a 3x3 convolution to 64 channels 1,728.

    >>> 224 * 224 * 3
    150528
    >>> dense_params(150_528, 1_000, bias=False)
    150528000
    >>> conv_params(3, 3, 64, bias=False)
    1728

    The three of LeNet-5:

    >>> dense_params(5 * 5 * 16, 120), dense_params(120, 84), dense_params(84, 10)
    (48120, 10164, 850)

    Args:
      inputs: numbers that go in; of a flattened map height * width * channels.
      outputs: units.
      bias: whether there is one a unit.

    Raises:
      UserError: if an argument is no such number.
    """
    _check("dense_params", 1, inputs=inputs, outputs=outputs)
    return (inputs + bool(bias)) * outputs


def stack_field(kernels: Sequence[int], strides: Sequence[int] | None = None) -> int:
    """Returns the receptive field of layers on top of one another, along one axis in pixels.

        r_l = r_{l-1} + (k_l - 1) * s_1 * ... * s_{l-1}

    For whole models, with branches and padding, there is `receptive_field`.

    >>> stack_field([3, 3])
    5
    >>> stack_field([5, 2, 5, 2], strides=[1, 2, 1, 2])  # LeNet-5, to its second pooling.
    16

    Args:
      kernels: sizes of the kernels or windows, from the image on.
      strides: of the same layers; None is 1 for all.

    Raises:
      UserError: if these are no positive integers, or not as many.
    """
    strides = [1] * len(kernels) if strides is None else strides
    if len(kernels) != len(strides):
        raise UserError(f"stack_field: there are {len(kernels)} kernels and {len(strides)} "
                        "strides; give one for each layer.")
    span = Span(1, 1, 0)
    for kernel, stride in zip(kernels, strides, strict=True):
        _check("stack_field", 1, kernel=kernel, stride=stride)
        span = span.window(kernel, stride)
    return span.size


def _check(function: str, least: int, **values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
            raise UserError(f"{function}: {name} must be an integer from {least}, got {value!r}.")
