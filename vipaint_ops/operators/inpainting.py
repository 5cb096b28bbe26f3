"""Inpainting: the pixels of a mask are observed, the others hidden."""

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
        InputError: the mask is not finite, leaves [0, 1], or observes nothing; when used: its size is not that of
            the picture.
    """

    selects = True

    def __init__(self, mask: Tensor):
        mask = torch.as_tensor(mask)
        self.mask = mask if mask.is_floating_point() else mask.float()
        if self.mask.numel() == 0:
            raise InputError(f"mask has shape {tuple(self.mask.shape)}: it is empty")
        if not self.mask.isfinite().all() or self.mask.min() < 0 or self.mask.max() > 1:
            raise InputError("mask must be finite and within [0, 1] (1 observed, 0 hidden)")
        if not (self.mask > 0).any():
            raise InputError("mask observes nothing (it is 0 everywhere): leave some of the picture visible")

    def __call__(self, x: Tensor) -> Tensor:
        return self._fitting(x) * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self._fitting(y) * y

    def pinv(self, y: Tensor) -> Tensor:
        mask = self._fitting(y)
        return torch.where(mask > 0, y / mask.clamp(min=torch.finfo(y.dtype).tiny), 0.0)

    def squared(self, v: Tensor) -> Tensor:
        return self._fitting(v) ** 2 * v

    def observed(self, y: Tensor) -> Tensor:
        return (self._fitting(y) > 0).expand_as(y)

    def to(self, device: torch.device, dtype: torch.dtype) -> Inpainting:
        return Inpainting(self.mask.to(device, dtype))

    def _fitting(self, x: Tensor) -> Tensor:
        """The mask, if it is of the size of ``x``."""
        sizes = zip(reversed(self.mask.shape), reversed(x.shape), strict=False)
        if x.numel() == 0 or x.ndim < self.mask.ndim or not all(own in (1, side) for own, side in sizes):
            own, other = (tuple(tensor.shape[-2:]) for tensor in (self.mask, x))
            if own == other or len(own) < 2 or len(other) < 2:
                own, other = tuple(self.mask.shape), tuple(x.shape)
            raise InputError(
                f"picture is {'x'.join(map(str, other))} and the mask {'x'.join(map(str, own))}: both need the same "
                "height and width"
            )
        return self.mask
