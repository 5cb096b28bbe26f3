"""Crop and stitch: small pictures around the holes of a large one, and their way back.

The cost of a model grows with the pixels of its picture, and it works best at the size that it was trained for. A hole
of 100 pixels in a photograph of 4000 x 3000 is therefore restored in a window around it; all other pixels stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..operators.base import require_pictures
from ..settings import Settings, number
from .masks import same_aspect, window_mean

_NEAR = 16
_MOST_CELLS = 128
"""Holes closer than the model's size divided by the first, or the picture's longer side by the second, are one."""

Box = tuple[int, int, int, int]
"""Top, left, bottom and right; the last two are exclusive."""


@dataclass(frozen=True)
class WindowConfig(Settings):
    """How large windows are.

    Attributes:
        size: side in pixels of the pictures that the model was trained for. A window has at most its square in pixels.
            The largest value stands for no limit.
        context: pixels around a hole on each side, as a share of its longer side.
        enlarge: largest enlargement of a window. A smaller hole gets more context instead.
        multiple: the sides that the model sees are multiples of this.
    """

    size: int = number(512, 16, 16384)
    context: float = number(0.5, 0, 8)
    enlarge: float = number(2.0, 1, 16)
    multiple: int = number(16, 1)


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a picture, and the size in which the model sees it.

    Attributes:
        top, left, height, width: the part, in pixels of the picture.
        rows, columns: the size for the model.
        own: the hidden pixels that this window restores, boolean ``[1, 1, height, width]``. Those of other windows are
            hidden here, too, but not stitched.
    """

    top: int
    left: int
    height: int
    width: int
    rows: int
    columns: int
    own: Tensor

    def of(self, x: Tensor) -> Tensor:
        """This part of ``[..., height, width]``, a view."""
        return x[..., self.top : self.top + self.height, self.left : self.left + self.width]


def find_windows(mask: Tensor, config: WindowConfig | None = None) -> list[Window]:
    """Windows around the holes of a mask, from top to bottom.

    Every hidden pixel belongs to one window. Holes share a window if they are closer than 1/16 of the model's size or
    1/128 of the picture's longer side, or if that costs no resolution. A window is a square, as far as the picture is
    large enough, with its holes in the middle, as far as the border allows.

    Args:
        mask: of :func:`~vipaint_ops.images.masks.fit_mask`, ``[1, 1, height, width]``.

    Raises:
        InputError: it is no such mask.
    """
    config = config or WindowConfig()
    _check_mask(mask)
    height, width = mask.shape[2:]
    rows, columns = (mask[0, 0] == 0).nonzero().unbind(1)
    _, holes = _hole_labels(mask, config)[rows, columns].unique(return_inverse=True)
    groups = _shared(_boxes(rows, columns, holes), (height, width), config)
    group_of_hole = torch.empty(int(holes.max()) + 1, dtype=torch.int32)
    for group, (_, members) in enumerate(groups, 1):
        group_of_hole[members] = group
    owner = torch.zeros(1, 1, height, width, dtype=torch.int32)
    owner[0, 0, rows, columns] = group_of_hole[holes]
    return [_window(box, owner, group, config) for group, (box, _) in enumerate(groups, 1)]


def whole_window(mask: Tensor) -> Window:
    """The whole picture in its own size, as a window."""
    _check_mask(mask)
    height, width = mask.shape[2:]
    return Window(0, 0, height, width, height, width, mask == 0)


def crop(images: Tensor, mask: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """The part of pictures in a window, and its mask, in the size for the model.

    What is hidden in ``images`` is not read. A pixel is hidden if any pixel that it would be made of is; it is 0.

    Args:
        images: ``[batch, channels, height, width]``.
        mask: of :func:`~vipaint_ops.images.masks.fit_mask`, ``[1, 1, height, width]``.

    Raises:
        InputError: no pixel is observed in this size.
    """
    require_pictures(images=images, mask=mask)
    size = (window.rows, window.columns)
    known = window.of(mask)
    shrunk = 1 - F.adaptive_max_pool2d(_dilate(1 - known, *_reach(known, size)), size)
    if not shrunk.any():
        raise InputError(
            f"mask observes nothing in the window of {window.height}x{window.width} pixels, once it is resized to "
            f"{window.rows}x{window.columns}: take more context or a larger size, or do not crop"
        )
    pixels = torch.where(known > 0, window.of(images), 0.0)
    return torch.where(shrunk > 0, _resize(pixels, size), 0.0), shrunk


def stitch(
    picture: Tensor, mask: Tensor, windows: Sequence[Window], restored: Sequence[Tensor], feather: int = 0
) -> Tensor:
    """Pictures with their holes filled from restored windows, ``[batch, channels, height, width]``.

    Known pixels farther than ``feather`` from a hole are those of ``picture``, bit for bit. Hidden ones are not read.

    Args:
        picture: the original, one for all or one for each of the batch.
        mask: as for :func:`crop`.
        windows: of :func:`find_windows`.
        restored: a batch for each window, ``[batch, channels, rows, columns]``, or larger by an upscaler.
        feather: width in pixels of a band of known pixels around each hole, in which the window fades out.

    Raises:
        InputError: another number of batches than windows, batches of different length, or another aspect.
    """
    _check_restored(picture, windows, restored)
    stitched = picture.expand(len(restored[0]), *picture.shape[1:]).clone()
    for window, images in zip(windows, restored, strict=True):
        part = window.of(stitched)
        back = _resize(images, (window.height, window.width))
        share = _fade(window.own.to(back), feather) * window.of(mask)
        part.copy_(torch.where(window.own, back, part + share * (back - part)))
    return stitched


def _hole_labels(mask: Tensor, config: WindowConfig) -> Tensor:
    """A number for each pixel, ``[height, width]``, the same for hidden pixels whose cells are connected."""
    height, width = mask.shape[2:]
    side = max(config.size // _NEAR, math.ceil(max(height, width) / _MOST_CELLS))
    cells = F.max_pool2d(1 - mask, side, ceil_mode=True)
    labels, spread = cells, cells * torch.arange(1, cells.numel() + 1.0).view_as(cells)
    while not torch.equal(labels, spread):  # kornia's connected_components takes a fixed number of steps
        labels, spread = spread, cells * F.max_pool2d(spread, 3, stride=1, padding=1)
    return labels[0, 0].repeat_interleave(side, 0).repeat_interleave(side, 1)


def _boxes(rows: Tensor, columns: Tensor, holes: Tensor) -> list[Box]:
    """The box of each hole; ``holes`` has the number of the hole of each pixel."""

    def of_each(x: Tensor, extreme: str) -> Tensor:
        return x.new_zeros(int(holes.max()) + 1).scatter_reduce(0, holes, x, extreme, include_self=False)

    edges = [of_each(x, "amin") for x in (rows, columns)] + [of_each(x, "amax") + 1 for x in (rows, columns)]
    return [(top, left, bottom, right) for top, left, bottom, right in torch.stack(edges, 1).tolist()]


def _shared(boxes: Sequence[Box], picture: tuple[int, int], config: WindowConfig) -> list[tuple[Box, list[int]]]:
    """Groups of holes that share a window: the box of each, and the positions of its holes in ``boxes``."""

    def pixels(box: Box) -> int:
        return math.prod(_window_size(box, picture, config))

    def can_share(one: Box, other: Box) -> bool:
        return pixels(_union(one, other)) <= max(config.size**2, pixels(one), pixels(other))

    groups: list[tuple[Box, list[int]]] = []
    for position, box in sorted(enumerate(boxes), key=lambda hole: hole[1]):
        members = [position]
        while partner := next((group for group in groups if can_share(box, group[0])), None):
            groups.remove(partner)
            box, members = _union(box, partner[0]), partner[1] + members
        groups.append((box, members))
    return sorted(groups)


def _union(one: Box, other: Box) -> Box:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def _window_size(box: Box, picture: tuple[int, int], config: WindowConfig) -> tuple[int, int]:
    """Height and width of the window around a box in a picture of that size."""
    extent = max(box[2] - box[0], box[3] - box[1])
    side = math.ceil(max(extent * (1 + 2 * config.context), config.size / config.enlarge))
    return min(side, picture[0]), min(side, picture[1])


def _window(box: Box, owner: Tensor, group: int, config: WindowConfig) -> Window:
    picture = (owner.shape[2], owner.shape[3])
    height, width = _window_size(box, picture, config)
    scale = min(config.enlarge, config.size / math.sqrt(height * width))
    top, left = (
        min(max((first + last - length) // 2, 0), whole - length)
        for first, last, length, whole in zip(box[:2], box[2:], (height, width), picture, strict=True)
    )
    rows, columns = (_multiple_below(scale * length, config.multiple) for length in (height, width))
    own = owner[..., top : top + height, left : left + width] == group
    return Window(top, left, height, width, rows, columns, own)


def _multiple_below(length: float, multiple: int) -> int:
    """The largest multiple up to ``length``, which rounding may have made a little smaller; at least one."""
    return max(math.floor(length / multiple + 1e-6), 1) * multiple


def _taps(old: Sequence[int], new: Sequence[int]) -> int:
    """Reach of the filter that resizes, in pixels of the coarser grid: 2 of bicubic enlargement, else 1 of linear."""
    return 2 if all(after >= before for before, after in zip(old, new, strict=True)) else 1


def _reach(known: Tensor, size: Sequence[int]) -> list[int]:
    """How far beyond its own area, in pixels of ``known``, a resized pixel reads, along each axis."""
    old = known.shape[2:]
    taps, ratios = _taps(old, size), [before / after for before, after in zip(old, size, strict=True)]
    return [0 if ratio == 1 else math.floor(taps * max(1, ratio) - ratio / 2 + 0.5) for ratio in ratios]


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize without aliasing, and without values outside the range of each picture."""
    if images.shape[2:] == size:
        return images
    mode = "bicubic" if _taps(images.shape[2:], size) == 2 else "bilinear"
    resized = F.interpolate(images, size=size, mode=mode, antialias=True)
    return resized.clamp(images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True))


def _dilate(x: Tensor, rows: int, columns: int) -> Tensor:
    tall = F.max_pool2d(x, (2 * rows + 1, 1), stride=1, padding=(rows, 0))
    return F.max_pool2d(tall, (1, 2 * columns + 1), stride=1, padding=(0, columns))


def _fade(own: Tensor, feather: int) -> Tensor:
    """1 in the hole, falling to 0 over ``feather`` pixels around it."""
    radius = feather // 2
    wide = _dilate(own, feather - radius, feather - radius)
    return window_mean(wide, radius)


def _check_mask(mask: Tensor) -> None:
    require_pictures(mask=mask)
    if mask.shape[:2] != (1, 1) or not ((mask == 0) | (mask == 1)).all() or mask.all():
        raise InputError(
            f"mask has shape {tuple(mask.shape)} and values from {mask.min():g} to {mask.max():g}; give one mask of "
            "zeros (hidden) and ones (observed), as [1, 1, height, width], with a hole"
        )


def _check_restored(picture: Tensor, windows: Sequence[Window], restored: Sequence[Tensor]) -> None:
    if len(restored) != len(windows):
        raise InputError(f"images are {len(restored)} batches for {len(windows)} windows; give one for each window")
    lengths = [len(images) for images in restored]
    if len(set(lengths)) > 1 or len(picture) not in (1, lengths[0]):
        raise InputError(
            f"images are batches of {', '.join(map(str, lengths))} for a picture batch of {len(picture)}; draw the "
            "same number of samples for each window, and one for each picture if they are several"
        )
    for position, (window, images) in enumerate(zip(windows, restored, strict=True), 1):
        rows, columns = images.shape[2:]
        if not same_aspect((rows, columns), (window.rows, window.columns)):
            raise InputError(
                f"images of window {position} are {rows}x{columns} and the window was cropped to "
                f"{window.rows}x{window.columns} (height x width): their aspects differ; keep the shape of the window"
            )
