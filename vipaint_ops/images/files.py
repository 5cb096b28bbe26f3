"""Pictures as they lie in files: sRGB colours, opacity, and what does not fit in either."""

from __future__ import annotations

import os
import re
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from ..errors import InputError, optional_packages

with optional_packages():
    from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

_HEAD = 2**18
_ROUNDING = 1e-3
_SAME_COLOUR = 3
_BLACK_POINT_COMPENSATION = 0x2000
_SRGB_GAMMA = 1 / 2.2
_SRGB_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_DEEP = {
    "JPEG2000": re.compile(rb"\xff\x4f\xff\x51.{38}[\x08-\x7f\x88-\xff]", re.DOTALL),
    "AVIF": re.compile(rb"av1C..[\x40-\x7f\xc0-\xff]", re.DOTALL),
}
"""Headers of more than 8 bits a channel: Ssiz of the SIZ marker, and high_bitdepth of the AV1 configuration."""
_GAIN_MAPS = (b"hdrgm", b"hdrgainmap", b"HDRGainMap", b"urn:iso:std:iso:ts:21496")
_PROFILE_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_WHITE_IS_ZERO = 0
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339


class PictureFile(NamedTuple):
    """The first frame of a picture file, upright.

    Attributes:
        colours: ``[height, width, 3]`` in [0, 1].
        opacity: ``[height, width, 1]`` in [0, 1], 0 transparent.
        frames: number of frames (or pages, or layers) of the file.
        changes: what was converted or lost, in words.
    """

    colours: np.ndarray
    opacity: np.ndarray
    frames: int
    changes: list[str]


def read_picture(path: str | Path, name: str, *, managed: bool) -> PictureFile:
    """Read a picture file of any kind that Pillow reads as pixels.

    The EXIF orientation is applied. Grey keeps its depth. Whole numbers of
    more than 8 bits are divided by the full scale of the smallest depth that holds them: 8 bits, 16 bits or the file's.

    Args:
        name: what the file is, for messages.
        managed: convert colours from the file's profile to sRGB.

    Raises:
        InputError: the file is missing, damaged, too large, empty or not a picture, or has NaN or values out of range.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            raise ValueError("it is a pipe or a device; give a file")
        # From a path, Pillow maps a plain TIFF into memory and turns it wrongly.
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            file.seek(0)
            opened = Image.open(file)
            if opened.format == "EPS":
                raise ValueError("it is a PostScript program; save it as PNG")
            changes = _changes(opened, head)
            frames = getattr(opened, "n_frames", 1)
            picture: Image.Image = ImageOps.exif_transpose(opened)
            if 0 in picture.size:
                raise ValueError("it has no pixels")
            if opened.mode[0] in "IF":
                colours, opacity = _deep_grey(picture, _full_scale(opened), changes)
                if getattr(opened, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
                    colours = 1 - colours
            else:
                colours, opacity = _eight_bit(picture, managed, changes)
    except Exception as error:  # for a damaged file, Pillow raises exceptions of many types
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it is damaged, or no picture" if unknown else str(error) or type(error).__name__
        raise InputError(f"{name} {str(path)!r} cannot be read: {reason}") from error
    low, high = colours.min(), colours.max()
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise InputError(
            f"{name} {str(path)!r} has NaN or values outside [0, 1] ({low:g} to {high:g}); save it as 8- or 16-bit PNG"
        )
    if (opacity < 1).any():
        changes.append("transparent parts become white")
    return PictureFile(colours.clip(0, 1), opacity, frames, changes)


def _changes(opened: Image.Image, head: bytes) -> list[str]:
    """What the file's header says of its pixels beyond 8-bit sRGB."""
    changes = []
    if opened.mode[0] not in "IF" and _is_cut_to_8_bits(opened, head):
        changes.append("colours of more than 8 bits are cut to 8")
    if any(mark in head for mark in _GAIN_MAPS) or (opened.format == "AVIF" and b"tmap" in head[:4096]):
        changes.append("the HDR gain map is lost")
    info = opened.info
    if opened.format == "PNG" and b"cICP" in head[:4096]:
        changes.append("the colour space of its cICP chunk (HDR or wide gamut) is not applied")
    elif "icc_profile" not in info and "srgb" not in info:
        if abs(info.get("gamma", _SRGB_GAMMA) - _SRGB_GAMMA) > 0.01:
            changes.append(f"its gamma of {info['gamma']:g} is not applied")
        if not np.allclose(info.get("chromaticity", _SRGB_PRIMARIES), _SRGB_PRIMARIES, atol=0.005):
            changes.append("its own primary colours are not applied")
        if opened.mode == "CMYK":
            changes.append("CMYK without a profile gives approximate colours")
    return changes


def _is_cut_to_8_bits(opened: Any, head: bytes) -> bool:
    """Whether Pillow reads fewer bits a channel than the file has."""
    if opened.format in _DEEP:
        return bool(_DEEP[opened.format].search(head))
    if opened.format not in ("PNG", "PPM", "SGI", "TIFF") or not opened.tile:
        return False
    codec, _, _, arguments = opened.tile[0]
    if codec == "ppm":
        return bool(arguments[-1] > 255)
    raw_mode = arguments if isinstance(arguments, str) else str(arguments[:1])
    return codec == "SGI16" or ";16" in raw_mode


def _full_scale(opened: Image.Image) -> int:
    """The largest whole number of the file's depth."""
    tags: Any = getattr(opened, "tag_v2", {})
    bits = tags.get(_TIFF_BITS, (16 if opened.mode.startswith("I;16") else 31,))[0]
    return 2 ** (bits - (tags.get(_TIFF_SAMPLE_FORMAT) == (2,))) - 1


def _deep_grey(picture: Image.Image, full: int, changes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    if "icc_profile" in picture.info:
        changes.append("its colour profile is not applied")
    values = np.asarray(picture)
    opacity = np.ones((*values.shape, 1), dtype=np.float32)
    if picture.mode[0] == "I":
        opacity[values == picture.info.get("transparency")] = 0
        if full == 2**32 - 1:
            values = values.astype(np.uint32)
        largest = int(values.max())
        white = next(scale for scale in (*(s for s in (255, 65535) if s < full), full) if largest <= scale)
        if largest > 65535 and largest < white / 256:
            raise ValueError(f"its white is not known: the largest value is {largest} of {full}; save it with 16 bits")
        if white < full:
            changes.append(f"no value is above {white}, which is taken for white")
        values = values / white
    changes.append("results have 8 bits a channel")
    return np.repeat(values.astype(np.float32)[..., None], 3, axis=2), opacity


def _eight_bit(picture: Image.Image, managed: bool, changes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    if picture.mode in ("La", "LAB"):
        picture = picture.convert("LA") if picture.mode == "La" else _lab_to_srgb(picture)
    pixels = np.asarray(picture.convert("RGBA"))
    colours = _to_srgb(picture, changes) if managed and "icc_profile" in picture.info else None
    colours = pixels[..., :3] if colours is None else colours
    return colours / np.float32(255), pixels[..., 3:] / np.float32(255)


def _lab_to_srgb(picture: Image.Image) -> Image.Image:
    return _transform(picture, ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB"))


def _to_srgb(picture: Image.Image, changes: list[str]) -> np.ndarray | None:
    """The colours by the file's profile, or None where it is that of sRGB or cannot be applied."""
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(picture.info["icc_profile"]))
        mode = _PROFILE_MODES[profile.profile.xcolor_space]
        if (mode == "CMYK") != (picture.mode == "CMYK") or (mode == "L" and picture.mode not in ("1", "L", "LA")):
            raise ValueError(f"a profile of {mode} colours in a file of {picture.mode} colours")
        transform = ImageCms.buildTransform(
            profile,
            _srgb(),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            cast(Any, _BLACK_POINT_COMPENSATION),
        )
        if mode != "CMYK" and _keeps_colours(transform, mode):
            return None
        colours = np.asarray(_transform(picture.convert(mode), transform))
    except (ImageCms.PyCMSError, OSError, ValueError, KeyError, ImportError):
        changes.append("its colour profile cannot be read and is lost")
        return None
    changes.append("colours are converted from its profile to sRGB")
    return colours


def _keeps_colours(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a transform leaves a grid of colours as they are, up to rounding."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3) if mode == "RGB" else levels[None]
    swatches = Image.fromarray(grid)
    change = np.asarray(_transform(swatches, transform), np.int16) - np.asarray(swatches.convert("RGB"))
    return bool(np.abs(change).max() <= _SAME_COLOUR)


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _transform(picture: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    return cast(Image.Image, ImageCms.applyTransform(picture, transform))
