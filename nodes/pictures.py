"""Conversion between ComfyUI's IMAGE and MASK and the library's images and masks.

IMAGE is ``[batch, height, width, channels]`` in [0, 1]; library images are ``[batch, 3, height, width]`` in [-1, 1]. In
a MASK 1 is the area to fill; in library masks 1 is observed.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.images import masks
from ..vipaint_ops.images.paint import painted
from ..vipaint_ops.images.pictures import crop_to
from ..vipaint_ops.operators.inpainting import HIGHEST, LOWEST, evidence

PICTURE_MULTIPLES = (8, 16, 32)
"""Sides of images that models take are multiples of one of these."""


def pictures(image: Tensor, name: str = "image") -> Tensor:
    """``[batch, 3, height, width]`` in [-1, 1]; a copy that supports gradients. ``name`` is that of the input.

    Raises:
        InputError: NaN, another range of values, or another number of channels than 1, 3 or 4.
    """
    with torch.inference_mode(False):
        image = image.clone().float()
        if not image.isfinite().all():
            raise InputError(f"{name} contains NaN or infinite values: check the node that made it")
        low, high = image.min().item(), image.max().item()
        if low < LOWEST or high > HIGHEST:
            raise InputError(f"{name} has values from {low:.3g} to {high:.3g}; ComfyUI's images lie in [0, 1]")
        if image.shape[-1] not in (1, 3, 4):
            raise InputError(f"{name} has {image.shape[-1]} channels; use an RGB image")
        colours = image.expand(*image.shape[:-1], 3) if image.shape[-1] == 1 else image[..., :3]
        return 2 * colours.clamp(0, 1).movedim(-1, 1).contiguous() - 1


def without_border(samples: Tensor, height: int, width: int) -> Tensor:
    """Samples of a padded image, ``[batch, 3, height, width]``, cropped to the image; others unchanged.

    Padded sides are the next multiple of one of :data:`PICTURE_MULTIPLES` (``pad_to_model``).
    """
    found = tuple(samples.shape[2:])
    padded = [tuple(side + -side % multiple for side in (height, width)) for multiple in PICTURE_MULTIPLES]
    return crop_to(samples, height, width) if found in padded else samples


def images(pictures: Tensor) -> Tensor:
    """IMAGE of library images, clamped, on the CPU."""
    return ((pictures.detach().float().cpu().clamp(-1, 1) + 1) / 2).movedim(1, -1).contiguous()


def sheet(pixels: np.ndarray) -> Tensor:
    """IMAGE of one image of 8-bit pixels ``[height, width, 3]``, as :mod:`~vipaint_ops.evaluation.plots` draws them."""
    return torch.from_numpy(pixels)[None].float() / 255


def mask_of(mask: Tensor) -> Tensor:
    """The library's mask of a MASK: 1 observed, ``[batch, 1, height, width]``; a copy that supports gradients.

    Raises:
        InputError: NaN or values far outside [0, 1].
    """
    with torch.inference_mode(False):
        mask = mask.clone().float()
        if not mask.isfinite().all() or mask.min() < LOWEST or mask.max() > HIGHEST:
            raise InputError("mask has values outside [0, 1]: 1 is the area to fill, 0 the known pixels")
        return 1 - mask.clamp(0, 1).reshape(-1, 1, *mask.shape[-2:])


def observed(mask: Tensor, height: int, width: int, greys: bool = False) -> Tensor:
    """The library's mask, ``[1, 1, height, width]``, of a MASK of one image of that size.

    Args:
        greys: keep them, for blending; else they are hidden.

    Raises:
        InputError: nothing masked, everything masked, NaN or another range, or another aspect ratio.
    """
    known = mask_of(mask)
    with torch.inference_mode(False):
        hard = evidence(known)
        if hard.all():
            raise InputError(
                "mask has no hole: paint the area to fill (right-click Load Image, Open in MaskEditor) or connect a "
                "mask. For an image without alpha, Load Image gives an empty mask of 64x64"
            )
        if not hard.any():
            raise InputError("mask covers the whole image: leave some pixels unmasked")
        return (masks.fit_greys if greys else masks.fit_mask)(known, height, width)


def masked_picture(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The picture of an IMAGE of one image, and the library's mask of its MASK.

    It is said if the image seems to have the paint of its mask in its colours.

    Raises:
        InputError: as :func:`pictures` and :func:`observed`.
    """
    picture = pictures(image)
    known = observed(mask, *picture.shape[2:])
    if painted(picture, known):
        warnings.warn(
            "the image looks painted over under the mask, as by some versions of the mask editor. These pixels are not "
            "used. If paint shows beside the mask, grow the mask or load the image again",
            stacklevel=2,
        )
    return picture, known
