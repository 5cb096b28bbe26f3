"""ComfyUI's IMAGE and MASK to the library's pictures and masks, and back.

IMAGE is ``[batch, height, width, channels]`` in [0, 1], pictures are ``[batch, 3, height, width]`` in [-1, 1]; in a
MASK 1 is what to paint, in the library's 1 is what is observed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.images import masks

_LOWEST, _HIGHEST = -0.5, 1.5
"""Resizing may overshoot [0, 1] by this much and is clamped; more is another range of values."""


def pictures(image: Tensor, name: str = "image") -> Tensor:
    """``[batch, 3, height, width]`` in [-1, 1]; a copy that gradients can pass. ``name`` is the input's.

    Raises:
        InputError: NaN, another range of values, or channels that are no colours.
    """
    with torch.inference_mode(False):
        image = image.clone().float()
        if not image.isfinite().all():
            raise InputError(f"{name} contains NaN or infinite values: the node that made it went wrong")
        low, high = image.min().item(), image.max().item()
        if low < _LOWEST or high > _HIGHEST:
            raise InputError(f"{name} has values from {low:.3g} to {high:.3g}; ComfyUI's images lie in [0, 1]")
        if image.shape[-1] not in (1, 3, 4):
            raise InputError(f"{name} has {image.shape[-1]} channels; give one in RGB")
        colours = image.expand(*image.shape[:-1], 3) if image.shape[-1] == 1 else image[..., :3]
        return 2 * colours.clamp(0, 1).movedim(-1, 1).contiguous() - 1


def single_picture(image: Tensor, name: str = "image") -> Tensor:
    """The one picture of an IMAGE, ``[1, 3, height, width]``; ``name`` is the input's.

    Raises:
        InputError: a batch, or what :func:`pictures` refuses.
    """
    if len(image) != 1:
        raise InputError(f"{name} is a batch of {len(image)}; VIPaint takes one: pick it with ImageFromBatch")
    return pictures(image, name)


def images(pictures: Tensor) -> Tensor:
    """IMAGE of pictures, clamped, on the CPU."""
    return ((pictures.detach().float().cpu().clamp(-1, 1) + 1) / 2).movedim(1, -1).contiguous()


def observed(mask: Tensor, height: int, width: int) -> Tensor:
    """The library's mask, ``[1, 1, height, width]``, from a MASK for a picture of that size.

    Raises:
        InputError: no hole, nothing left to observe, NaN or another range, several masks, or another aspect.
    """
    with torch.inference_mode(False):
        mask = mask.clone().float()
        if not mask.isfinite().all() or mask.min() < 0 or mask.max() > 1:
            raise InputError("mask has values outside [0, 1]: 1 is what to paint, 0 what to keep")
        if mask.ndim == 3 and len(mask) > 1:
            raise InputError(f"mask is a batch of {len(mask)}; give the one that belongs to the picture")
        if not (mask > 0).any():
            raise InputError(
                "mask has no hole: mark what to paint (right-click the picture in Load Image: Open in MaskEditor), or "
                "connect a mask; without one, Load Image gives an empty mask of 64x64"
            )
        if not (mask < 1).any():
            raise InputError("mask covers the whole picture: leave some of it unmasked to be continued")
        return masks.fit_mask(1 - mask, height, width)
