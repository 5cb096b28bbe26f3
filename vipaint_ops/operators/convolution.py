"""Convolution of planes with a reflected border, and its transpose, piece by piece.

A blur is A = V R: R reflects the picture at its edges, V is the valid part of a convolution. The transpose is
R^T V^T: the full correlation, whose border is then folded back. V is a product in Fourier space at every kernel size:
from 5 x 5 taps on that is faster than summing (docs/operators.md), and unlike cuDNN it never rounds to TF32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import working_dtype


def reflect(x: Tensor, radius: int, dim: int) -> Tensor:
    """``x`` with ``radius`` entries more on both sides, mirrored at the outermost ones, which are not repeated."""
    size = x.shape[dim]
    before, after = x.narrow(dim, 1, radius), x.narrow(dim, size - 1 - radius, radius)
    return torch.cat([before.flip(dim), x, after.flip(dim)], dim)


def fold(x: Tensor, radius: int, dim: int) -> Tensor:
    """The transpose of :func:`reflect`: the border is added to the entries that it mirrors."""
    size = x.shape[dim] - 2 * radius
    inner = x.narrow(dim, radius, size).clone()
    inner.narrow(dim, 1, radius).add_(x.narrow(dim, 0, radius).flip(dim))
    inner.narrow(dim, size - 1 - radius, radius).add_(x.narrow(dim, radius + size, radius).flip(dim))
    return inner


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """The valid part of x * kernel: ``[..., height + h - 1, width + w - 1]`` to ``[..., height, width]``.

    Computed in float32 or better, returned in the dtype of ``x``.
    """
    (height, width), (h, w) = x.shape[-2:], kernel.shape
    # The wrap-around falls on the first h - 1 rows and w - 1 columns, which are outside the valid part.
    grid = _fast_length(height), _fast_length(width)
    dtype = working_dtype(x.dtype)
    product = torch.fft.rfft2(x.to(dtype), s=grid) * torch.fft.rfft2(kernel.to(dtype), s=grid)
    return torch.fft.irfft2(product, s=grid)[..., h - 1 : height, w - 1 : width].to(x.dtype).contiguous()


def correlate(y: Tensor, kernel: Tensor) -> Tensor:
    """The transpose of :func:`convolve`: ``[..., height, width]`` to ``[..., height + h - 1, width + w - 1]``."""
    h, w = kernel.shape
    return convolve(F.pad(y, (w - 1, w - 1, h - 1, h - 1)), kernel.flip((0, 1)))


def _fast_length(length: int) -> int:
    """The next number without prime factors above 5: transforms of such lengths are the fastest."""
    while 30**32 % length:  # a divisor of this power is 5-smooth, and every 5-smooth number below 2^32 divides it
        length += 1
    return length
