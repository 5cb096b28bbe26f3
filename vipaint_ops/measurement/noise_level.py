"""Estimates of an observation's ``noise_std``: the noise of a picture, and the error of an autoencoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..operators.base import require_pictures

FEWEST = 64
"""Smallest number of coefficients for an estimate; with fewer its error is a fifth."""

_GAUSSIAN_MEDIAN = 0.6744897501960817
"""Median of the absolute value of a standard normal variable."""


def noise_level(picture: Tensor, mask: Tensor | None = None) -> float:
    """Standard deviation of white noise on a picture, mean over channels, in the units of the picture.

    The median absolute diagonal coefficient of the finest level of Daubechies' db2 wavelets (Donoho & Johnstone 1994,
    "Ideal spatial adaptation by wavelet shrinkage"), as in scikit-image's ``estimate_sigma``, over all shifts of the
    grid and over coefficients without a hidden pixel. Fine texture counts as noise.

    Args:
        picture: ``[1, channels, height, width]``.
        mask: ``[1, 1, height, width]`` or broadcastable, 1 observed; pixels below 1 do not count.

    Raises:
        InputError: too few squares of 4 x 4 pixels are observed.
    """
    require_pictures(picture=picture)
    if len(picture) != 1:
        raise InputError(f"picture has shape {tuple(picture.shape)}; give one at a time, as a batch of one")
    # Inner products with (1, x) are zero: slopes do not count.
    root = math.sqrt(3)
    wavelet = torch.tensor([1 - root, root - 3, 3 + root, -1 - root], dtype=picture.dtype) / math.sqrt(32)
    kernel = torch.outer(wavelet, wavelet).to(picture.device)
    size = picture.shape[-2:]
    if min(size) < len(wavelet):
        raise InputError(f"image is {size[0]}x{size[1]} (height x width); noise is estimated from 4x4 pixels or more")
    sizes = F.conv2d(picture.movedim(1, 0), kernel[None, None]).abs().flatten(1)
    if mask is not None:
        _check_mask(mask, size)
        hidden = (mask < 1).to(picture.dtype).expand(1, 1, *size)
        sizes = sizes[:, F.max_pool2d(hidden, len(wavelet), 1).flatten() == 0]
    if sizes.shape[1] < FEWEST:
        raise InputError(
            f"only {sizes.shape[1]} squares of 4x4 pixels are observed whole, and noise is estimated from {FEWEST} or "
            "more: give a picture without so many holes, or choose noise_level yourself"
        )
    return (sizes.median(1).values.mean() / _GAUSSIAN_MEDIAN).item()


def _check_mask(mask: Tensor, size: Sequence[int]) -> None:
    fits = mask.ndim <= 4 and all(
        side in (1, full) for side, full in zip(mask.shape[::-1], (*size[::-1], 1, 1), strict=False)
    )
    if not fits or mask.is_complex() or not mask.isfinite().all():
        raise InputError(
            f"mask has shape {tuple(mask.shape)}; give finite numbers, [1, 1, height, width], for a picture of "
            f"{size[0]}x{size[1]}"
        )


def covering_level(picture: Tensor, reconstruction: Tensor, mask: Tensor | None = None) -> float:
    """Noise level that covers the autoencoder's reconstruction error too.

    sqrt(e^2 + k^2) with e the root-mean-square error of the reconstruction and k the noise level of the reconstruction:
    the noise that the autoencoder removes is part of e, the rest is k. At least the picture's own level.

    Args:
        picture: ``[1, channels, height, width]``.
        reconstruction: the picture, encoded and decoded.
        mask: as in :func:`noise_level`.

    Raises:
        InputError: as :func:`noise_level`.
    """
    known = torch.ones_like(picture) if mask is None else (mask == 1).to(picture.dtype).expand_as(picture)
    error = (known * (picture - reconstruction) ** 2).sum() / known.sum().clamp(min=1)
    kept = noise_level(reconstruction, mask)
    return max(math.sqrt(error.item() + kept**2), noise_level(picture, mask))


def model_level(
    picture: Tensor, autoencode: Callable[[Tensor], Tensor], multiple: int, mask: Tensor | None = None
) -> float:
    """The :func:`covering_level` of a picture for an autoencoder.

    The picture is cropped to sides that the autoencoder takes. What is hidden is filled with the mean of the known
    pixels of each channel, so that it has no effect.

    Args:
        picture: ``[1, channels, height, width]``.
        autoencode: encodes and decodes a picture.
        multiple: sides that the autoencoder takes are multiples of this.
        mask: ``[1, 1, height, width]``, 1 observed.

    Raises:
        InputError: the picture is smaller than a cell of the autoencoder, or as :func:`noise_level`.
    """
    height, width = (side - side % multiple for side in picture.shape[2:])
    if not height or not width:
        raise InputError(
            f"image is {picture.shape[2]}x{picture.shape[3]} (height x width), smaller than a latent cell of the "
            f"autoencoder ({multiple})"
        )
    picture = filled = picture[..., :height, :width]
    if mask is not None:
        mask = (mask[..., :height, :width] == 1).to(picture.dtype)
        mean = (mask * picture).sum((2, 3), keepdim=True) / mask.sum().clamp(min=1)
        filled = torch.where(mask > 0, picture, mean)
    return covering_level(picture, autoencode(filled), mask)
