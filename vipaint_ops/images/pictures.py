"""Reading and writing of picture and mask files, and their fit to the sizes that a model takes."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..operators.inpainting import KNOWN_FROM, evidence
from .files import Image, PictureFile, read_picture

_COLOURFUL = 1 / 8


def load_image(path: str | Path) -> Tensor:
    """Read a picture as float ``[1, 3, height, width]`` in [-1, 1], in sRGB.

    The EXIF orientation and the colour profile are applied. Transparent parts become white. Grey keeps its depth. A
    warning says what of the file was converted or lost.

    Raises:
        InputError: the file is missing, damaged or not a picture, or has NaN or values out of range.
    """
    file = read_picture(path, "picture", managed=True)
    _report(f"picture {str(path)!r}", file.frames, file.changes)
    return 2 * _tensor(file.opacity * file.colours + (1 - file.opacity)) - 1


def load_mask(path: str | Path, invert: bool = False, *, white: str | None = None) -> Tensor:
    """Read a mask file as float ``[1, 1, height, width]``, 1 observed and 0 hidden.

    As in ComfyUI, white is to be painted (hidden) and black is known. Where the opacity varies, it is the mask:
    transparent is hidden, and colours are not looked at. Greys are hidden
    (:func:`~vipaint_ops.operators.inpainting.evidence`). A warning says what was not plain.

    Args:
        invert: white (or opaque) is hidden. It will go in the next version; use ``white``.
        white: what white marks: "fill", pixels to paint, or "known". Earlier versions took it for known: a warning says
            so if it is not given.

    Raises:
        InputError: the file is missing, damaged or not a picture, has NaN or values out of range or colours, or can be
            read in two ways; or another ``white``.
    """
    if white not in (None, "fill", "known"):
        raise InputError(f"white is {white!r}; it must be 'fill' or 'known'")
    if white is None and not invert:
        warnings.warn(
            "load_mask takes white for pixels to paint now: white='known' for masks of earlier versions, white='fill' "
            "for no warning",
            FutureWarning,
            stacklevel=2,
        )
    name = f"mask {str(path)!r}"
    file = read_picture(path, "mask", managed=False)
    mask = _grey(file, name)
    _report(name, file.frames, mask.notes)
    values = _tensor(mask.values)
    marks_known = not invert if mask.opacity else white == "known"
    return evidence(values if marks_known else 1 - values)


def save_image(path: str | Path, image: Tensor) -> None:
    """Write ``[1, 3, height, width]`` or ``[3, height, width]`` in [-1, 1] as an 8-bit picture, clamped."""
    Image.fromarray(pixels(image)).save(path)


def png(rgb: np.ndarray) -> bytes:
    """Pixels, ``[height, width, 3]`` in 8 bits or ``[height, width]`` in 16, as the content of a PNG file."""
    content = BytesIO()
    Image.fromarray(rgb).save(content, "png")
    return content.getvalue()


def pixels(image: Tensor) -> np.ndarray:
    """``[1, 3, height, width]`` or ``[3, height, width]`` in [-1, 1] as 8-bit ``[height, width, 3]``, clamped."""
    rows = image.reshape(image.shape[-3:]).permute(1, 2, 0)
    return ((rows.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()


def centre_square(image: Tensor, size: int) -> Tensor:
    """The largest central square of a picture, resized to ``size`` x ``size`` pixels by area averaging.

    In a resized mask, a value below 1 means partly hidden: treat it as hidden.
    """
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return F.interpolate(image[..., top : top + side, left : left + side], size=(size, size), mode="area")


def _report(name: str, frames: int, notes: list[str]) -> None:
    if frames > 1:
        notes = [f"only the first of its {frames} frames is used", *notes]
    if notes:
        warnings.warn(f"{name}: {'; '.join(notes)}", stacklevel=1)


class _Grey(NamedTuple):
    """The mask in a file: ``[height, width, 1]``, whether it is the opacity, and what is to be said of it."""

    values: np.ndarray
    opacity: bool
    notes: list[str]


def _grey(file: PictureFile, name: str) -> _Grey:
    opaque = file.opacity[..., 0] >= KNOWN_FROM
    if opaque.any() and not opaque.all():
        if _is_black_and_white(file.colours[opaque]):
            raise InputError(f"{name} has a hole in its colours and one in transparency; save it without transparency")
        return _Grey(file.opacity, True, ["its opacity is taken, not its colours"])
    red, green, blue = np.moveaxis(file.colours, 2, 0)
    if max(np.abs(red - green).max(), np.abs(green - blue).max(), np.abs(blue - red).max()) > _COLOURFUL:
        raise InputError(
            f"{name} has colours, as a photograph: are picture and mask swapped? "
            "Save a mask in black and white, or with a transparent hole"
        )
    grey = ((red + green + blue) / 3)[..., None]
    if 0 < grey.max() < 1.5 / 255 and np.isin(grey, (0, grey.max())).all():
        return _Grey(grey / grey.max(), False, ["its levels 0 and 1 are taken for black and white"])
    if ((grey > 0.1) & (grey < 0.9)).mean() > 0.5:
        return _Grey(grey, False, ["most of it is grey, which is hidden: is it a photograph?"])
    return _Grey(grey, False, [])


def _is_black_and_white(colours: np.ndarray) -> bool:
    """Whether nearly all of ``[pixels, 3]`` are black or white, and both occur."""
    black, white = ((np.abs(colours - level) < 0.1).all(1).mean() for level in (0, 1))
    return bool(min(black, white) > 0 and black + white > 0.9)


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
