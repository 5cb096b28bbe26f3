"""Conversion between ComfyUI's IMAGE and MASK and the library's images and masks.

IMAGE is ``[batch, height, width, channels]`` in [0, 1]; library images are ``[batch, 3, height, width]`` in [-1, 1]. In
a MASK 1 is the area to fill; in library masks 1 is observed.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.images import masks
from ..vipaint_ops.images.padding import crop_to
from ..vipaint_ops.images.paint import painted
from ..vipaint_ops.operators.inpainting import HIGHEST, LOWEST, evidence

PICTURE_MULTIPLES = (8, 16, 32)
"""Sides of images that models take are multiples of one of these."""


def check_image(image: Any, name: str) -> None:
    """Refuse what is no IMAGE. ``name`` is that of the input.

    Raises:
        InputError: not a tensor of floating-point numbers, of another shape than ``[batch, height, width, channels]``
            with 1, 3 or 4 channels, without pixels, NaN, or another range of values.
    """
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise InputError(f"{name} is {_kind(image)}; connect an image, whose values are floating-point numbers")
    if image.ndim != 4:
        raise InputError(f"{name} has shape {tuple(image.shape)}; an image is [batch, height, width, channels]")
    _check_size(image, name)
    if image.shape[-1] not in (1, 3, 4):
        raise InputError(f"{name} has {image.shape[-1]} channels; use an RGB image")
    values = image.float()
    if not values.isfinite().all():
        raise InputError(f"{name} contains NaN or infinite values: check the node that made it")
    low, high = values.min().item(), values.max().item()
    if low < LOWEST or high > HIGHEST:
        raise InputError(f"{name} has values from {low:.3g} to {high:.3g}; ComfyUI's images lie in [0, 1]")


def check_mask(mask: Any, name: str = "mask") -> None:
    """Refuse what is no MASK: ``[height, width]``, ``[batch, height, width]`` or ``[batch, 1, height, width]``.

    Raises:
        InputError: not a tensor of real numbers, of another shape, without pixels, NaN, or values far outside [0, 1].
    """
    if not isinstance(mask, Tensor) or mask.is_complex():
        raise InputError(f"{name} is {_kind(mask)}; connect a mask")
    if mask.ndim not in (2, 3, 4) or (mask.ndim == 4 and mask.shape[1] != 1):
        raise InputError(f"{name} has shape {tuple(mask.shape)}; a mask is [batch, height, width]")
    _check_size(mask, name)
    values = mask.float()
    if not values.isfinite().all() or values.min() < LOWEST or values.max() > HIGHEST:
        raise InputError(f"{name} has values outside [0, 1]: 1 is the area to fill, 0 the known pixels")


def _kind(value: Any) -> str:
    return f"a tensor of {str(value.dtype).removeprefix('torch.')}" if isinstance(value, Tensor) else repr(value)[:60]


def _check_size(tensor: Tensor, name: str) -> None:
    if len(tensor) == 0:
        raise InputError(f"{name} is an empty batch: check the node that made it")
    if tensor.numel() == 0:
        raise InputError(f"{name} has shape {tuple(tensor.shape)}, without pixels: check the node that made it")


def pictures(image: Tensor, name: str = "image") -> Tensor:
    """``[batch, 3, height, width]`` in [-1, 1]; a copy that supports gradients. ``name`` is that of the input.

    Raises:
        InputError: as :func:`check_image`.
    """
    check_image(image, name)
    with torch.inference_mode(False):
        image = image.clone().float()
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
        InputError: as :func:`check_mask`.
    """
    check_mask(mask)
    with torch.inference_mode(False):
        mask = mask.clone().float()
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
