"""Grey: the picture of a camera without colours."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .base import Operator, require_planes, working_dtype

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (Rec. 601)."""


class Grey(Operator):
    """The luma of a picture: ``[..., 3, height, width]`` to ``[..., 1, height, width]``.

    Raises:
        InputError: when used: the picture has other than three channels.
    """

    orthogonal_rows = True

    def __call__(self, x: Tensor) -> Tensor:
        return self._weighted(x, 1)

    def adjoint(self, y: Tensor) -> Tensor:
        require_planes(y)
        if y.shape[-3] != 1:
            raise InputError(f"measurements have {y.shape[-3]} channels; those of a grey picture have one")
        return (y * _luma(y)).to(y.dtype)

    def pinv(self, y: Tensor) -> Tensor:
        return self.adjoint(y) / sum(weight**2 for weight in LUMA)

    def squared(self, v: Tensor) -> Tensor:
        return self._weighted(v, 2)

    def _weighted(self, x: Tensor, power: int) -> Tensor:
        require_planes(x)
        if x.shape[-3] != 3:
            raise InputError(f"picture has {x.shape[-3]} channels; grey needs three, RGB")
        weighted = x * _luma(x) ** power
        return weighted.sum(-3, keepdim=True).to(x.dtype)


def _luma(x: Tensor) -> Tensor:
    return torch.tensor(LUMA, device=x.device, dtype=working_dtype(x.dtype))[:, None, None]
