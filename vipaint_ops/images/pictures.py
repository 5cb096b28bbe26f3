"""Pictures and masks between files and tensors, and their fit to the sizes a model takes."""

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

    Turned as its EXIF orientation says; transparent parts lie on white; 16-bit grey keeps its depth.

    Raises:
        InputError: no such file, not a picture, or values that are not finite.
    """
    return 2 * _rgb(path, background=1.0) - 1


def load_mask(path: str | Path, invert: bool = False) -> Tensor:
    """Read a mask as float ``[1, 1, height, width]``: white is observed (1), black is hidden (0).

    Greys are cut at one half, so the grey noise of a JPEG observes nothing by accident; transparent parts are black.

    Args:
        invert: for masks that paint the hole white.

    Raises:
        InputError: no such file, not a picture, or values that are not finite.
    """
    observed = _rgb(path, background=0.0).mean(1, keepdim=True) >= 0.5
    return (observed ^ invert).float()


def save_image(path: str | Path, image: Tensor) -> None:
    """Write ``[1, 3, height, width]`` or ``[3, height, width]`` in [-1, 1] as an 8-bit picture, clamped."""
    rows = image.reshape(image.shape[-3:]).permute(1, 2, 0)
    pixels = ((rows.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)


def pad_observation(observation: Observation, multiple: int) -> Observation:
    """The observation of a picture extended to the right and below until both sides are multiples of ``multiple``.

    The border is not measured, so it constrains nothing; :func:`crop_to` takes it off again.

    Raises:
        InputError: the operator's measurements are never of this size.
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
    """The top left ``height`` x ``width`` pixels: what :func:`pad_observation` started from."""
    return images[..., :height, :width]


def centre_square(image: Tensor, size: int) -> Tensor:
    """The largest central square of a picture, averaged over areas to ``size`` x ``size`` pixels.

    For a mask: every pixel that is hidden in part comes out below 1, and must count as hidden.
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
