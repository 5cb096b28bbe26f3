"""Super-resolution: a picture made smaller by an integer factor."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..errors import InputError
from .base import Operator, require_planes, working_dtype

KINDS = ("bicubic", "average")


class SuperResolution(Operator):
    """The picture made ``factor`` times smaller: one small matrix along each axis, the same for every channel.

    ``bicubic`` is Matlab's imresize with antialiasing: the cubic of a = -0.5 stretched by the factor (16 taps for 4),
    on a picture mirrored at its edges. ``average`` is the mean of blocks. Everything is exact for both: the adjoint is
    the transposed matrices, the pseudo-inverse their pseudo-inverses, ``squared`` their squared entries.

    Args:
        factor: 1 or more.
        kind: "bicubic" or "average".

    Raises:
        InputError: another factor or kind; when used: the factor does not divide a side of the picture.
    """

    def __init__(self, factor: int, kind: str = "bicubic"):
        if not isinstance(factor, int) or factor < 1:
            raise InputError(f"factor is {factor}; it must be an integer of at least 1")
        if kind not in KINDS:
            raise InputError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
        self.factor, self.kind = factor, kind
        self.orthogonal_rows = kind == "average"

    def __call__(self, x: Tensor) -> Tensor:
        return _along_axes(x, *self._matrices(x))

    def adjoint(self, y: Tensor) -> Tensor:
        rows, columns = self._matrices(y, self.factor)
        return _along_axes(y, rows.T, columns.T)

    def pinv(self, y: Tensor) -> Tensor:
        return _along_axes(y, *self._matrices(y, self.factor, inverse=True))

    def squared(self, v: Tensor) -> Tensor:
        rows, columns = self._matrices(v)
        return _along_axes(v, rows**2, columns**2)

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] * self.factor, size[1] * self.factor

    def _matrices(self, x: Tensor, enlarged: int = 1, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """The matrices of rows and columns for a picture ``enlarged`` times the size of ``x``."""
        require_planes(x)
        height, width = (side * enlarged for side in x.shape[-2:])
        if height % self.factor or width % self.factor:
            raise InputError(
                f"picture is {height}x{width} (height x width), which the factor {self.factor} does not divide: "
                f"crop it to {height - height % self.factor}x{width - width % self.factor}"
            )
        build = _inverse if inverse else _matrix
        rows, columns = (
            build(side // self.factor, self.factor, self.kind, x.device, working_dtype(x.dtype))
            for side in (height, width)
        )
        return rows, columns


def _along_axes(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return (rows @ (x.to(rows.dtype) @ columns.T)).to(x.dtype)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _matrix(size: int, factor: int, kind: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    """``[size, factor * size]``: built in float64, kept for the next call, also if that one needs gradients."""
    return _exact(size, factor, kind).to(device, dtype)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _inverse(size: int, factor: int, kind: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The pseudo-inverse of :func:`_matrix`, whose rows are independent."""
    matrix = _exact(size, factor, kind)
    return torch.linalg.solve(matrix @ matrix.T, matrix).T.to(device, dtype)


def _exact(size: int, factor: int, kind: str) -> Tensor:
    if kind == "average":
        return torch.eye(size, dtype=torch.float64).repeat_interleave(factor, 1) / factor
    centres = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * factor - 0.5
    taps = (centres - 2 * factor).ceil() + torch.arange(4 * factor + 1)
    weights = _cubic((taps - centres) / factor)
    pixels = taps.long() % (2 * factor * size)
    pixels = torch.minimum(pixels, 2 * factor * size - 1 - pixels)
    matrix = torch.zeros(size, factor * size, dtype=torch.float64)
    return matrix.scatter_add_(1, pixels, weights / weights.sum(1, keepdim=True))


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))
