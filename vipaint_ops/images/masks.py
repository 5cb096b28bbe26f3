"""Masks, their fit to a picture, and compositing.

A mask is float ``[1, 1, height, width]``: 1 observed, 0 hidden. Greys are hidden, unless they are asked for to blend.
ComfyUI's masks are the opposite: 1 marks the area to paint.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..operators.base import require_pictures
from ..operators.inpainting import evidence
from ..settings import Range, check_number, is_finite

NAMES = ("half", "box", "random", "pixels")
"""Names that :func:`by_name` accepts."""

MOST_GAIN = 1.25
"""Largest change of contrast by :func:`match_colours`, far above that of an autoencoder."""
MOST_SHIFT = 0.06
"""Largest change of a colour by :func:`without_shift`, in [-1, 1]: eight levels of 255."""
_ASPECT_TOLERANCE = 0.01
_HOST_EMPTY_SIZE = (64, 64)


_SHARE, _SIDE = Range(0, 1), Range(1, 2**16, whole=True)


def half_plane(height: int, width: int, angle: float = 0.0) -> Tensor:
    """Hide the half plane on one side of a line through the centre: VIPaint's "rotated window".

    A pixel whose centre lies on the line stays observed.

    Args:
        angle: direction of the hidden side in degrees, counter-clockwise: 0 hides the right half, 90 the top half.
    """
    _check_sides(height, width)
    right = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    up = (height - 1) / 2 - torch.arange(height, dtype=torch.float64)
    if not is_finite(angle):
        raise InputError(f"angle is {angle}; it must be a number of degrees")
    turn = math.radians(angle)
    distance = right[None, :] * math.cos(turn) + up[:, None] * math.sin(turn)
    return _as_mask(distance <= 1e-9 * max(height, width))


def box(height: int, width: int, size: int | tuple[int, int]) -> Tensor:
    """Hide a central box.

    Args:
        size: side of a square, or (height, width), in pixels.

    Raises:
        InputError: the box is empty, covers the whole picture or is larger than it.
    """
    _check_sides(height, width)
    rows, columns = (size, size) if isinstance(size, int) else size
    if not (0 < rows <= height and 0 < columns <= width) or (rows, columns) == (height, width):
        raise InputError(f"box size is {rows}x{columns}; it must be positive and smaller than {height}x{width}")
    top, left = (height - rows) // 2, (width - columns) // 2
    observed = torch.ones(height, width, dtype=torch.bool)
    observed[top : top + rows, left : left + columns] = False
    return _as_mask(observed)


def random_boxes(
    height: int, width: int, hole: tuple[float, float] = (0.3, 0.7), *, generator: torch.Generator
) -> Tensor:
    """Hide a union of random rectangles, as in VIPaint's "random" masks for LSUN.

    Args:
        hole: smallest and largest hidden share of the picture; the share is drawn uniformly between them.
        generator: on the CPU, so that a seed gives the same mask on every device.

    Raises:
        InputError: the shares are out of order, outside (0, 1) or less than one pixel apart.
    """
    _check_sides(height, width)
    low, high = hole
    pixels = height * width
    if not (0 < low < high < 1 and (high - low) * pixels >= 1):
        raise InputError(f"hole is {hole}; give two shares in (0, 1), the smaller first, at least one pixel apart")
    # One more pixel fits as long as the share is a pixel below `high`, so the loop always reaches this target.
    target = low + (high - low - 1 / pixels) * float(torch.rand((), generator=generator))
    observed = torch.ones(height, width, dtype=torch.bool)
    reach = 0.5
    while _hidden_share(observed) < target:
        candidate = observed.clone()
        top, bottom = _random_interval(height, reach, generator)
        left, right = _random_interval(width, reach, generator)
        candidate[top:bottom, left:right] = False
        if _hidden_share(candidate) <= high:
            observed = candidate
        else:
            reach /= 2
    return _as_mask(observed)


def random_pixels(height: int, width: int, keep: float, *, generator: torch.Generator) -> Tensor:
    """Observe a random share of the pixels.

    Args:
        keep: the observed share, in (0, 1); rounded to whole pixels.
        generator: on the CPU, so that a seed gives the same mask on every device.

    Raises:
        InputError: ``keep`` observes no pixel or all pixels.
    """
    _check_sides(height, width)
    check_number("keep", keep, _SHARE)
    count = round(keep * height * width)
    if not 0 < count < height * width:
        raise InputError(f"keep is {keep}; it must leave some of the {height}x{width} pixels observed and some hidden")
    observed = torch.zeros(height * width, dtype=torch.bool)
    observed[torch.randperm(height * width, generator=generator)[:count]] = True
    return _as_mask(observed.view(height, width))


def brush_strokes(height: int, width: int, share: float, *, generator: torch.Generator) -> Tensor:
    """Hide a share of the picture under random strokes of a round brush.

    Args:
        share: the hidden share, in (0, 1); rounded to whole pixels.
        generator: on the CPU, so that a seed gives the same mask on every device.

    Raises:
        InputError: ``share`` hides no pixel or all pixels.
    """
    _check_sides(height, width)
    check_number("share", share, _SHARE)
    left = round(share * height * width)
    if not 0 < left < height * width:
        raise InputError(f"share is {share}; it must hide some of the {height}x{width} pixels and leave some observed")
    observed = torch.ones(height, width, dtype=torch.bool)
    while left > 0:
        radius, path = _random_stroke(height, width, generator)
        for row, column in path:
            left -= _dab(observed, row, column, radius, left)
    return _as_mask(observed)


def outpaint_border(height: int, width: int, border: int) -> Tensor:
    """Hide a border on all four sides.

    Args:
        border: width in pixels.

    Raises:
        InputError: the border is empty or covers the whole picture.
    """
    _check_sides(height, width)
    if not 0 < 2 * border < min(height, width):
        raise InputError(f"border is {border}; it must be positive and leave some of the {height}x{width} pixels")
    observed = torch.zeros(height, width, dtype=torch.bool)
    observed[border:-border, border:-border] = True
    return _as_mask(observed)


def every_kth_pixel(height: int, width: int, step: int) -> Tensor:
    """Observe one pixel of every block of ``step`` x ``step`` pixels.

    It is the middle pixel; for even steps, the upper left of the four in the middle.

    Raises:
        InputError: ``step`` is less than 2 or larger than the picture.
    """
    _check_sides(height, width)
    if not 2 <= step <= min(height, width):
        raise InputError(f"step is {step}; it must be from 2 to the smaller side of {height}x{width} pixels")
    observed = torch.zeros(height, width, dtype=torch.bool)
    observed[(step - 1) // 2 :: step, (step - 1) // 2 :: step] = True
    return _as_mask(observed)


def by_name(name: str, height: int, width: int, *, generator: torch.Generator) -> Tensor:
    """A mask by its name on the command line.

    - ``half`` hides the right half.
    - ``box`` hides a central box of half the height and half the width.
    - ``random`` hides a union of rectangles over 30-70 % of the picture, drawn from ``generator``.
    - ``pixels`` hides 70 % of the pixels, drawn from ``generator``.

    Raises:
        InputError: the name is unknown.
    """
    match name:
        case "half":
            return half_plane(height, width)
        case "box":
            return box(height, width, (height // 2, width // 2))
        case "random":
            return random_boxes(height, width, generator=generator)
        case "pixels":
            return random_pixels(height, width, 0.3, generator=generator)
    raise InputError(f"mask {name!r} is unknown; choose one of {', '.join(NAMES)}")


def fit_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """Check a user's mask and resize it to the picture: 1 observed, 0 hidden, ``[1, 1, height, width]``.

    Greys are hidden (:func:`~vipaint_ops.operators.inpainting.evidence`). A mask of another size and the same aspect is
    resized, with a warning: a pixel is hidden if any part of it is.

    Args:
        mask: ``[h, w]``, ``[1, h, w]`` or ``[1, 1, h, w]``, 1 observed and 0 hidden, boolean or in [0, 1].

    Raises:
        InputError: the mask has another shape, values that are not finite or far outside [0, 1], or another aspect than
            the picture; or it has no hidden or no observed pixel.
    """
    known = evidence(fit_greys(mask, height, width))
    if known.all():
        raise InputError("mask has no hole (it is 1 everywhere): mark the area to paint with 0")
    if not known.any():
        raise InputError("mask observes nothing (it is 1 nowhere): leave some of the picture outside the hole")
    return known


def fit_greys(mask: Tensor, height: int, width: int) -> Tensor:
    """As :func:`fit_mask` with the greys of the mask, for blending, and without the test for a hole."""
    mask = _single(mask)
    known = evidence(mask)
    rows, columns = mask.shape[2:]
    if (rows, columns) == _HOST_EMPTY_SIZE != (height, width) and (known.all() or not known.any()):
        raise InputError(
            "mask has no hole: it is the empty 64x64 mask that ComfyUI uses when no mask is drawn; "
            f"draw or connect a mask for the {height}x{width} picture"
        )
    mask = mask.clamp(0, 1)
    return mask if (rows, columns) == (height, width) else _resize(mask, height, width)


def same_aspect(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two sizes (height, width) have the same aspect, to within 1 %."""
    return abs(one[1] * other[0] / (one[0] * other[1]) - 1) <= _ASPECT_TOLERANCE


def latent_grid(mask: Tensor, factor: int) -> Tensor:
    """The mask at the resolution of a latent, in the size of the mask.

    Each cell of ``factor`` x ``factor`` pixels takes the value of its least observed pixel. It is therefore observed
    only if all its pixels are.

    Args:
        mask: ``[batch, 1, height, width]`` in [0, 1]. If ``factor`` does not divide a side, its last cell is narrower.
    """
    require_pictures(mask=mask)
    height, width = mask.shape[2:]
    cells = 1 - F.max_pool2d(1 - mask, factor, ceil_mode=True)
    return cells.repeat_interleave(factor, 2).repeat_interleave(factor, 3)[..., :height, :width]


def composite(images: Tensor, picture: Tensor, mask: Tensor, feather: int = 0) -> Tensor:
    """Paste the observed picture over samples.

    Where the mask is 1, the result is ``picture``, bit for bit. Where it is 0, ``picture`` is not read.

    Args:
        images: samples, ``[batch, channels, height, width]``.
        picture: the observed picture, ``[1, channels, height, width]``.
        mask: of :func:`fit_mask`, ``[1, 1, height, width]``. With :func:`fit_greys`, picture and sample are blended
            where it is grey: what lies there in the picture shows through.
        feather: width in pixels, into the hole, over which the difference between picture and sample at the edge
            fades out. It hides seams of colour, not of shape. 0 leaves the samples in the hole unchanged.
    """
    require_pictures(images=images, picture=picture, mask=mask)
    difference = torch.where(mask > 0, picture - images, 0.0)
    blended = images + mask * difference
    if feather > 0:
        # Half of the window is observed at a straight edge: twice the share falls from 1 to 0 over the feather.
        share = window_mean(mask, feather)
        at_the_edge = window_mean(mask * difference, feather) / share.clamp(min=torch.finfo(mask.dtype).tiny)
        blended = blended + (1 - mask) * (2 * share).clamp(max=1) * at_the_edge
    return torch.where(mask == 1, picture, blended)


def without_shift(images: Tensor, picture: Tensor, mask: Tensor) -> Tensor:
    """Samples without the colour shift of the autoencoder, as it shows in the known pixels.

    The mean error of each channel over the observed pixels, at most :data:`MOST_SHIFT`, is taken off everywhere.

    Args:
        images: samples, ``[batch, channels, height, width]``.
        picture: the observed picture, ``[1, channels, height, width]``.
        mask: of :func:`fit_mask`, ``[1, 1, height, width]``. Where it is 0, ``picture`` is not read.
    """
    require_pictures(images=images, picture=picture, mask=mask)
    error = torch.where(mask > 0, images - picture, 0.0).sum((2, 3), keepdim=True) / mask.sum()
    return images - error.clamp(-MOST_SHIFT, MOST_SHIFT)


def match_colours(images: Tensor, picture: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale each channel of samples to the picture's mean and standard deviation over the observed pixels.

    The scale is at most :data:`MOST_GAIN` and at least its inverse: flat known pixels say nothing about contrast.

    Args:
        images: samples, ``[batch, channels, height, width]``.
        picture: the observed picture, ``[1, channels, height, width]``.
        mask: weights of the pixels, ``[1, 1, height, width]`` in [0, 1].
    """
    require_pictures(images=images, picture=picture, mask=mask)
    mean, deviation = _moments(images, mask)
    wanted_mean, wanted_deviation = _moments(torch.where(mask > 0, picture, 0.0), mask)
    gain = wanted_deviation / deviation.clamp(min=torch.finfo(images.dtype).eps)
    return wanted_mean + (images - mean) * gain.clamp(1 / MOST_GAIN, MOST_GAIN)


def _moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the observed pixels."""
    weight = mask / mask.sum()
    mean = (weight * x).sum((2, 3), keepdim=True)
    return mean, (weight * (x - mean) ** 2).sum((2, 3), keepdim=True).sqrt()


def _check_sides(height: int, width: int) -> None:
    check_number("height", height, _SIDE)
    check_number("width", width, _SIDE)


def _as_mask(observed: Tensor) -> Tensor:
    return observed.float()[None, None]


def _hidden_share(observed: Tensor) -> float:
    return 1 - observed.float().mean().item()


def _random_interval(length: int, reach: float, generator: torch.Generator) -> tuple[int, int]:
    """A random interval in [0, length), of one pixel to ``reach`` times ``length`` pixels."""
    size = 1 + int(torch.randint(max(int(reach * length), 1), (), generator=generator))
    start = int(torch.randint(length - size + 1, (), generator=generator))
    return start, start + size


def _random_stroke(height: int, width: int, generator: torch.Generator) -> tuple[float, list[list[float]]]:
    """The radius of a brush and the points (row, column) of a random path that starts inside the picture."""
    size, length, direction = torch.rand(3, generator=generator).tolist()
    radius = max((0.02 + 0.05 * size) * min(height, width), 1.0)
    turns = 0.35 * torch.randn(5 + round(35 * length), generator=generator)
    turns[0] = 2 * math.pi * direction
    angles = turns.cumsum(0)
    start = torch.rand(2, generator=generator) * torch.tensor([height - 1, width - 1])
    steps = 0.5 * radius * torch.stack([angles.sin(), angles.cos()], 1)
    return radius, (start + steps.cumsum(0) - steps).tolist()


def _dab(observed: Tensor, row: float, column: float, radius: float, most: int) -> int:
    """Hide a disc, or its ``most`` innermost pixels; returns the number of pixels that were observed before."""
    top, left = max(math.ceil(row - radius), 0), max(math.ceil(column - radius), 0)
    window = observed[top : max(math.floor(row + radius) + 1, 0), left : max(math.floor(column + radius) + 1, 0)]
    rows, columns = window.nonzero().unbind(1)
    distance = (rows + top - row) ** 2 + (columns + left - column) ** 2
    nearest = distance.argsort()[: min(most, int((distance <= radius**2).sum()))]
    window[rows[nearest], columns[nearest]] = False
    return len(nearest)


def _single(mask: Tensor) -> Tensor:
    if not 2 <= mask.ndim <= 4 or any(size != 1 for size in mask.shape[:-2]) or mask.numel() == 0:
        shape = tuple(mask.shape)
        raise InputError(f"mask has shape {shape}; give one mask, as [height, width] or [1, 1, height, width]")
    return mask.float().reshape(1, 1, *mask.shape[-2:])


def _resize(mask: Tensor, height: int, width: int) -> Tensor:
    rows, columns = mask.shape[2:]
    if not same_aspect((rows, columns), (height, width)):
        raise InputError(
            f"mask is {rows}x{columns} and the picture {height}x{width} (height x width): their aspects differ; "
            "crop or redraw the mask to the picture's shape"
        )
    warnings.warn(f"mask resized from {rows}x{columns} to the picture's {height}x{width}", stacklevel=3)
    return 1 - F.adaptive_max_pool2d(1 - mask, (height, width))


def window_mean(x: Tensor, radius: int) -> Tensor:
    """The mean over a square of ``2 radius + 1`` pixels around each pixel, as far as it lies in the picture."""
    tall = F.avg_pool2d(x, (2 * radius + 1, 1), stride=1, padding=(radius, 0), count_include_pad=False)
    return F.avg_pool2d(tall, (1, 2 * radius + 1), stride=1, padding=(0, radius), count_include_pad=False)
