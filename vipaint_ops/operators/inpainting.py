"""Inpainting: what the mask shows is observed, the rest is a hole."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .base import Operator


class Inpainting(Operator):
    """A = diag(mask): 1 observed, 0 hidden, values between weigh the measurement down.

    Args:
        mask: ``[height, width]``, ``[1, height, width]`` or ``[batch, 1, height, width]`` in [0, 1]
            (any shape that broadcasts against the picture).

    Raises:
        InputError: the mask is not finite, leaves [0, 1], or observes nothing.
    """

    selects = True

    def __init__(self, mask: Tensor):
        mask = torch.as_tensor(mask)
        self.mask = mask if mask.is_floating_point() else mask.float()
        if not self.mask.isfinite().all() or self.mask.min() < 0 or self.mask.max() > 1:
            raise InputError("mask must be finite and within [0, 1] (1 observed, 0 hidden)")
        if not (self.mask > 0).any():
            raise InputError("mask observes nothing (it is 0 everywhere): leave some of the picture visible")

    def __call__(self, x: Tensor) -> Tensor:
        return self.mask * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.mask * y

    def pinv(self, y: Tensor) -> Tensor:
        return torch.where(self.mask > 0, y / self.mask.clamp(min=torch.finfo(y.dtype).tiny), 0.0)

    def squared(self, v: Tensor) -> Tensor:
        return self.mask**2 * v

    def observed(self, y: Tensor) -> Tensor:
        return (self.mask > 0).expand_as(y)

    def to(self, device: torch.device, dtype: torch.dtype) -> Inpainting:
        return Inpainting(self.mask.to(device, dtype))
