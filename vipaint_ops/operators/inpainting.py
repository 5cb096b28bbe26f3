"""Inpainting: the pixels of a mask are observed, the others hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .base import Operator

KNOWN_FROM = 1 - 4 / 255
"""Value of a mask from which a pixel is observed: less is hidden. The rest is for the noise of a JPEG."""
LOWEST, HIGHEST = -0.5, 1.5
"""Masks may overshoot [0, 1] by this much, as resizing does. A larger range is an error."""


def evidence(mask: Tensor) -> Tensor:
    """1 where a mask (1 observed, 0 hidden) is all but 1, else 0: a pixel is observed or hidden, as a whole.

    Raises:
        InputError: the mask is empty, not finite, or far outside [0, 1].
    """
    if mask.is_complex() or mask.numel() == 0:
        raise InputError(f"mask has shape {tuple(mask.shape)} of {mask.dtype}; give real numbers, not empty")
    if not mask.isfinite().all():
        raise InputError("mask contains NaN or infinite values; give numbers from 0 (hidden) to 1 (observed)")
    low, high = mask.min().item(), mask.max().item()
    if low < LOWEST or high > HIGHEST:
        raise InputError(
            f"mask has values from {low:g} to {high:g}; give numbers from 0 (hidden) to 1 (observed): "
            "an 8-bit mask is divided by 255"
        )
    return (mask >= KNOWN_FROM).to(mask.dtype if mask.is_floating_point() else torch.float32)


class Inpainting(Operator):
    """A = diag(mask): 1 observed, 0 hidden. Greys are hidden (:func:`evidence`).

    Args:
        mask: ``[height, width]``, ``[1, height, width]`` or ``[batch, 1, height, width]`` in [0, 1]
            (any shape that broadcasts against the picture).

    Raises:
        InputError: the mask is not finite, far outside [0, 1], or observes nothing; when used: its size is not that of
            the picture.
    """

    selects = True

    def __init__(self, mask: Tensor):
        self.mask = evidence(torch.as_tensor(mask))
        if not self.mask.any():
            raise InputError("mask observes nothing (it is 1 nowhere): leave some of the picture visible")

    def __call__(self, x: Tensor) -> Tensor:
        return self._fitting(x) * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self._fitting(y) * y

    def pinv(self, y: Tensor) -> Tensor:
        return self._fitting(y) * y

    def squared(self, v: Tensor) -> Tensor:
        return self._fitting(v) * v

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
