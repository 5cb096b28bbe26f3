"""Blurs: convolution by a kernel, the picture reflected at its edges."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from ..errors import InputError
from .base import Operator, require_planes, working_dtype
from .convolution import convolve, correlate, fold, reflect
from .least_squares import least_squares


class Blur(Operator):
    """Each channel convolved with ``kernel``; the size stays, the picture is reflected at its outermost pixels.

    A true convolution: a bright point becomes the kernel, not its mirror image. The adjoint folds the reflected border
    back. ``squared`` is exact for measurements further from the edge than the kernel reaches; nearer ones count a pixel
    and its reflection as independent, which gives between a half (a quarter in corners) and all of the variance if no
    weight is negative. ``pinv`` is iterative: see :func:`~vipaint_ops.operators.least_squares.least_squares`.

    Args:
        kernel: ``[height, width]``, both odd; its sum is the gain of the blur, usually 1. Zero margins cost nothing.

    Raises:
        InputError: the kernel is not of this form, not finite or zero everywhere; when used: the picture is smaller
            than the kernel.
    """

    def __init__(self, kernel: Tensor):
        kernel = torch.as_tensor(kernel)
        if kernel.ndim != 2 or not all(side % 2 for side in kernel.shape):
            shape = "x".join(map(str, kernel.shape))
            raise InputError(f"kernel is {shape}; it must be two-dimensional with odd sides, so that it has a centre")
        if not kernel.isfinite().all() or not kernel.any():
            raise InputError("kernel is zero everywhere, or contains NaN or infinite values")
        self.kernel = kernel.to(working_dtype(kernel.dtype))
        self._core = _without_zero_margins(self.kernel)

    @staticmethod
    def of_picture(picture: Tensor) -> Blur:
        """A blur of gain 1 by the kernel in a picture, ``[1, channels, height, width]`` in [-1, 1]; black is 0.

        Raises:
            InputError: a side is even, or the picture is black.
        """
        spot = (picture[0].mean(0) + 1) / 2
        return Blur(spot / spot.sum())

    def __call__(self, x: Tensor) -> Tensor:
        return self._convolved(x, self._core)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y)
        rows, columns = (side // 2 for side in self._core.shape)
        return fold(fold(correlate(y, self._core), rows, -2), columns, -1)

    def pinv(self, y: Tensor) -> Tensor:
        return least_squares(self, y)

    def squared(self, v: Tensor) -> Tensor:
        # Rounding in Fourier space must not make a variance negative.
        return self._convolved(v, self._core**2).clamp(min=0)

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = self.kernel.shape
        if height > size[0] or width > size[1]:
            raise InputError(
                f"kernel is {height}x{width}, larger than the picture of {size[0]}x{size[1]} (height x width): "
                f"give a smaller kernel or a larger picture"
            )
        return size

    def to(self, device: torch.device, dtype: torch.dtype) -> Blur:
        moved = copy.copy(self)
        moved.kernel = self.kernel.to(device, working_dtype(dtype))
        moved._core = self._core.to(device, working_dtype(dtype))
        return moved

    def _convolved(self, x: Tensor, kernel: Tensor) -> Tensor:
        self._check(x)
        rows, columns = (side // 2 for side in kernel.shape)
        return convolve(reflect(reflect(x, rows, -2), columns, -1), kernel)

    def _check(self, x: Tensor) -> None:
        require_planes(x)
        self.picture_size((x.shape[-2], x.shape[-1]))


class GaussianBlur(Blur):
    """Blur by a Gaussian, cut at four standard deviations or at the kernel's side, and normalised.

    The defaults are those of the literature (DPS and its successors: 61, 3.0): 25 taps a side, the rest exactly 0.

    Args:
        kernel_size: side of the kernel in pixels, odd.
        std: of the Gaussian, in pixels, positive.
    """

    def __init__(self, kernel_size: int = 61, std: float = 3.0):
        if not (math.isfinite(std) and std > 0):
            raise InputError(f"std is {std}; it must be positive")
        offsets = centred(kernel_size)
        reach = int(min(4 * std + 0.5, kernel_size))
        weights = torch.where(offsets.abs() <= reach, torch.exp(-((offsets / std) ** 2) / 2), 0.0)
        weights = weights / weights.sum()
        super().__init__(torch.outer(weights, weights))


def centred(kernel_size: int) -> Tensor:
    """The pixels of a kernel's side as offsets from its centre, ``[kernel_size]`` in float64.

    Raises:
        InputError: the size is not odd and positive.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise InputError(f"kernel_size is {kernel_size}; it must be odd and positive, so that the kernel has a centre")
    return torch.arange(kernel_size, dtype=torch.float64) - kernel_size // 2


def _without_zero_margins(kernel: Tensor) -> Tensor:
    """The smallest part around the centre that holds everything but zeros."""
    used = (kernel != 0) | (kernel != 0).flip((0, 1))
    top, left = (int(used.any(dim).nonzero()[0]) for dim in (1, 0))
    return kernel[top : len(kernel) - top, left : kernel.shape[1] - left]
