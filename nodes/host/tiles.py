"""Differentiable decoding of a large latent in overlapping tiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

LEAST_SIDE, LEAST_OVERLAP, MOST_OVERLAP = 32, 8, 16
"""Smallest side of a tile, and bounds of the overlap of two tiles, in latent cells."""
MOST_OVERHEAD = 1.3
"""Largest area of all tiles over that of the latent."""


@dataclass(frozen=True)
class Axis:
    """Equal tiles along one side of a latent, in cells.

    Two neighbours overlap by an eighth of the side at most, or by :data:`LEAST_OVERLAP`.
    """

    length: int
    count: int

    @property
    def overlap(self) -> int:
        """Cells that neighbours have in common, at least."""
        if self.count == 1:
            return 0
        return min(max(self.length // (8 * (self.count - 1)), LEAST_OVERLAP), MOST_OVERLAP)

    @property
    def side(self) -> int:
        """Side of a tile."""
        return math.ceil((self.length + (self.count - 1) * self.overlap) / self.count)

    @property
    def starts(self) -> list[int]:
        """First cell of each tile; the last tile ends with the latent."""
        last = self.length - self.side
        return [round(last * number / max(self.count - 1, 1)) for number in range(self.count)]


@dataclass(frozen=True)
class Layout:
    """Tiles that cover a latent."""

    rows: Axis
    columns: Axis

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.rows.count * self.columns.count

    @property
    def share(self) -> float:
        """Area of a tile over that of the latent."""
        return self.rows.side * self.columns.side / (self.rows.length * self.columns.length)

    @property
    def overhead(self) -> float:
        """Area of all tiles over that of the latent."""
        return self.count * self.share


def layouts(height: int, width: int) -> list[Layout]:
    """Layouts of two and more tiles for a latent, the fewest tiles first; each tile is smaller than those before it."""
    axes = [[Axis(length, n) for n in range(1, max(length // LEAST_SIDE, 1) + 1)] for length in (height, width)]
    found = [
        Layout(rows, columns)
        for rows, columns in product(*axes)
        if rows.count * columns.count > 1 and max(rows.side, columns.side) <= 2 * min(rows.side, columns.side)
    ]
    found = [layout for layout in found if layout.overhead <= MOST_OVERHEAD]
    kept: list[Layout] = []
    for layout in sorted(found, key=lambda layout: (layout.count, layout.share)):
        if not kept or layout.share < kept[-1].share:
            kept.append(layout)
    return kept


def decode_tiled(decode: Callable[[Tensor], Tensor], latents: Tensor, factor: int, layout: Layout) -> Tensor:
    """Decode overlapping tiles of single latents and blend them linearly; differentiable, one tile in memory at a time.

    Args:
        decode: latents ``[1, channels, ..., h, w]`` to images ``[1, 3, factor h, factor w]``.
        latents: ``[batch, channels, ..., h, w]``.
    """
    height, width = layout.rows.side, layout.columns.side
    ramp = _ramp(layout.rows, factor, latents)[:, None] * _ramp(layout.columns, factor, latents)
    sides = [factor * side for side in latents.shape[-2:]]
    pictures = []
    for latent in latents.split(1):
        total, weight = latents.new_zeros(1, 3, *sides), latents.new_zeros(1, 1, *sides)
        for top, left in product(layout.rows.starts, layout.columns.starts):
            tile = latent[..., top : top + height, left : left + width]
            recomputed = torch.is_grad_enabled() and tile.requires_grad
            picture = checkpoint(decode, tile, use_reentrant=False) if recomputed else decode(tile)
            top, left = factor * top, factor * left
            border = (left, sides[1] - left - ramp.shape[1], top, sides[0] - top - ramp.shape[0])
            total = total + pad(ramp * picture, border)
            weight = weight + pad(ramp[None, None], border)
        pictures.append(total / weight)
    return torch.cat(pictures)


def _ramp(axis: Axis, factor: int, like: Tensor) -> Tensor:
    """Blending weights, linear over the overlap at both ends and above zero."""
    distance = torch.arange(1, factor * axis.side + 1, dtype=like.dtype, device=like.device)
    return torch.minimum(distance, distance.flip(0)).clamp(max=factor * max(axis.overlap, 1))
