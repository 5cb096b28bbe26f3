"""Differentiable decoding of a large latent in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

TILE, OVERLAP = 64, 16
"""Size and overlap of a tile, in latent cells."""


def decode_tiled(decode: Callable[[Tensor], Tensor], latents: Tensor, factor: int) -> Tensor:
    """Decode overlapping tiles of single latents and blend them linearly; differentiable, one tile in memory at a time.

    Args:
        decode: latents ``[1, channels, ..., h, w]`` to images ``[1, 3, factor h, factor w]``.
        latents: ``[batch, channels, ..., h, w]``.
    """
    rows = []
    for latent in latents.split(1):
        height, width = (factor * side for side in latent.shape[-2:])
        total, weight = latents.new_zeros(1, 3, height, width), latents.new_zeros(1, 1, height, width)
        for top, left in product(_starts(latent.shape[-2]), _starts(latent.shape[-1])):
            tile = latent[..., top : top + TILE, left : left + TILE]
            picture = checkpoint(decode, tile, use_reentrant=False) if tile.requires_grad else decode(tile)
            ramp = _ramp(picture.shape[-2], factor, latents)[:, None] * _ramp(picture.shape[-1], factor, latents)
            top, left = factor * top, factor * left
            border = (left, width - left - picture.shape[-1], top, height - top - picture.shape[-2])
            total = total + pad(ramp * picture, border)
            weight = weight + pad(ramp[None, None], border)
        rows.append(total / weight)
    return torch.cat(rows)


def _starts(length: int) -> Iterator[int]:
    last = max(length - TILE, 0)
    yield from range(0, last, TILE - OVERLAP)
    yield last


def _ramp(length: int, factor: int, like: Tensor) -> Tensor:
    """Blending weights, linear over the overlap at both ends and above zero."""
    distance = torch.arange(1, length + 1, dtype=like.dtype, device=like.device)
    return torch.minimum(distance, distance.flip(0)).clamp(max=factor * OVERLAP)
