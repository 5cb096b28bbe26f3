"""Crop: the top left part of a picture is measured."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .base import Operator, require_planes


class Crop(Operator):
    """The top left ``height`` x ``width`` pixels of a picture that is ``below`` rows and ``right`` columns larger.

    Raises:
        InputError: when used: the picture is of another size.
    """

    selects = True
    orthogonal_rows = True

    def __init__(self, height: int, width: int, below: int = 0, right: int = 0):
        self.height, self.width, self.below, self.right = height, width, below, right

    def __call__(self, x: Tensor) -> Tensor:
        require_planes(x)
        size = self.picture_size((self.height, self.width))
        if tuple(x.shape[-2:]) != size:
            raise InputError(
                f"picture is {x.shape[-2]}x{x.shape[-1]} (height x width); a crop to {self.height}x{self.width} takes "
                f"{size[0]}x{size[1]}"
            )
        # Some processors round products with a strided view differently from those with a contiguous copy.
        return x[..., : self.height, : self.width].contiguous()

    def adjoint(self, y: Tensor) -> Tensor:
        require_planes(y)
        if tuple(y.shape[-2:]) != (self.height, self.width):
            raise InputError(
                f"measurements are {y.shape[-2]}x{y.shape[-1]} (height x width); the cropped picture is "
                f"{self.height}x{self.width}"
            )
        return F.pad(y, (0, self.right, 0, self.below))

    def pinv(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def squared(self, v: Tensor) -> Tensor:
        return self(v)

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] + self.below, size[1] + self.right
