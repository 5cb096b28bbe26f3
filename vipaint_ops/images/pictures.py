"""Reading and writing of picture and mask files, and their fit to the sizes that a model takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import InputError
from ..measurement.observation import Observation
from ..operators import Compose, Crop


def load_image(path: str | Path) -> Tensor:
    """Read a picture as float ``[1, 3, height, width]`` in [-1, 1].

    The EXIF orientation is applied. Transparent parts become white. 16-bit grey keeps its depth.

    Raises:
        InputError: the file is missing, not a picture, or has NaN or values out of range.
    """
    return 2 * _rgb(path, background=1.0) - 1


def load_mask(path: str | Path, invert: bool = False) -> Tensor:
    """Read a mask as float ``[1, 1, height, width]``: white is observed (1), black is hidden (0).

    Greys are rounded at one half, so that compression noise of a JPEG has no effect. Transparent parts are black.

    Args:
        invert: for masks with a white hole.

    Raises:
        InputError: the file is missing, not a picture, or has NaN or values out of range.
    """
    observed = _rgb(path, background=0.0).mean(1, keepdim=True) >= 0.5
    return (observed ^ invert).float()


def save_image(path: str | Path, image: Tensor) -> None:
    """Write ``[1, 3, height, width]`` or ``[3, height, width]`` in [-1, 1] as an 8-bit picture, clamped."""
    rows = image.reshape(image.shape[-3:]).permute(1, 2, 0)
    pixels = ((rows.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)


def pad_observation(observation: Observation, multiple: int) -> Observation:
    """The observation of a picture extended at the right and the bottom to sides that are multiples of ``multiple``.

    The added border is not measured and constrains nothing. :func:`crop_to` removes it from the samples.

    Raises:
        InputError: the operator has no measurements of this size.
    """
    rows, columns = observation.y.shape[-2:]
    height, width = observation.operator.picture_size((rows, columns))
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return observation
    crop = Crop(height, width, below, right)
    operator = Compose(crop, observation.operator)
    return Observation(observation.y, operator, observation.noise_std, observation.likelihood)


def crop_to(images: Tensor, height: int, width: int) -> Tensor:
    """The top left ``height`` x ``width`` pixels: removes the border of :func:`pad_observation`."""
    return images[..., :height, :width]


def centre_square(image: Tensor, size: int) -> Tensor:
    """The largest central square of a picture, resized to ``size`` x ``size`` pixels by area averaging.

    In a resized mask, a value below 1 means partly hidden: treat it as hidden.
    """
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return F.interpolate(image[..., top : top + side, left : left + side], size=(size, size), mode="area")


def _rgb(path: str | Path, background: float) -> Tensor:
    """The picture in [0, 1], ``[1, 3, height, width]``, with transparent parts over a grey ``background``."""
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            pixels = _deep_grey(picture) if picture.mode[0] in "IF" else _eight_bit(picture, background)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"picture {str(path)!r} cannot be read: {error}") from error
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
        raise InputError(f"picture {str(path)!r} has NaN or values outside [0, 1]; save it as 8- or 16-bit PNG")
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]


def _deep_grey(picture: Image.Image) -> np.ndarray:
    values = np.asarray(picture, dtype=np.float32)
    return np.repeat((values if picture.mode == "F" else values / 65535)[..., None], 3, axis=2)


def _eight_bit(picture: Image.Image, background: float) -> np.ndarray:
    values = np.asarray(picture.convert("RGBA"), dtype=np.float32) / 255
    opaque = values[..., 3:]
    return opaque * values[..., :3] + (1 - opaque) * background
