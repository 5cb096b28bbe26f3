"""ComfyUI's VAE as decoder and encoder with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import comfy.model_management
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..vipaint_ops.errors import InputError
from .gradients import clone_weights_when_used, is_dynamic

TILE, OVERLAP = 64, 16
"""Side and overlap of a tile, in latent cells."""
_BACKWARD = 4
"""A backward pass keeps about this many times the memory that the host reckons with for a forward pass."""


class HostVAE:
    """The networks of a VAE, decoding latents as they lie on ComfyUI's wires to pictures in [-1, 1].

    The host's own ``decode`` clamps, and falls back to one without gradients where memory runs out; this one does
    neither, and decodes in tiles, each recomputed in the backward pass, where the whole would not fit.

    Raises:
        InputError: a VAE of sound or of another kind of thing than pictures.
    """

    def __init__(self, vae: Any):
        vae.throw_exception_if_invalid()
        self._vae = vae
        self.patcher = vae.patcher
        if is_dynamic(vae.patcher):
            self.patcher = vae.patcher.clone()
            clone_weights_when_used(self.patcher)
        if vae.output_channels != 3:
            raise InputError(f"vae makes {vae.output_channels} channels; VIPaint restores pictures of 3")
        self.factor = int(vae.spacial_compression_decode())
        self.latent_channels = int(vae.latent_channels)
        self._video = vae.latent_dim == 3
        low, middle, high = vae.process_output(torch.tensor([-0.5, 0.0, 0.5])).tolist()
        self._gain, self._offset = high - low, middle

    @property
    def network(self) -> torch.nn.Module:
        return self.patcher.model

    def memory(self, latent_shape: tuple[int, ...]) -> float:
        """Bytes that decoding with a backward pass takes, roughly."""
        return _BACKWARD * self._vae.memory_used_decode(latent_shape, self._vae.vae_dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[batch, channels, (1,) h, w]`` to pictures ``[batch, 3, height, width]``, unclamped."""
        if latents.ndim == 5 and not self._video:
            latents = latents[:, :, 0]
        elif latents.ndim == 4 and self._video:
            latents = latents[:, :, None]
        if self._needs_tiles(latents):
            pictures = decode_tiled(self._decode, latents, self.factor)
        else:
            pictures = self._decode(latents)
        return 2 * (self._gain * pictures + self._offset) - 1

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures in [-1, 1] to latents; a latent of one frame where the VAE is one of video."""
        x = self._vae.process_input((pictures + 1) / 2)
        x = x[:, :, None] if self._video else x
        return self._vae.first_stage_model.encode(x.to(self._vae.vae_dtype)).to(pictures.dtype)

    def _decode(self, latents: Tensor) -> Tensor:
        y = self._vae.first_stage_model.decode(latents.to(self._vae.vae_dtype)).to(latents.dtype)
        return y[:, :, 0] if y.ndim == 5 else y

    def _needs_tiles(self, latents: Tensor) -> bool:
        if max(latents.shape[-2:]) <= TILE:
            return False
        return self.memory(tuple(latents.shape)) > comfy.model_management.get_free_memory(self._vae.device)


def decode_tiled(decode: Callable[[Tensor], Tensor], latents: Tensor, factor: int) -> Tensor:
    """Decode overlapping tiles of single latents and blend them linearly; differentiable, one tile in memory at a time.

    Args:
        decode: latents ``[1, channels, ..., h, w]`` to pictures ``[1, 3, factor h, factor w]``.
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
            total = total + torch.nn.functional.pad(ramp * picture, border)
            weight = weight + torch.nn.functional.pad(ramp[None, None], border)
        rows.append(total / weight)
    return torch.cat(rows)


def _starts(length: int) -> Iterator[int]:
    last = max(length - TILE, 0)
    yield from range(0, last, TILE - OVERLAP)
    yield last


def _ramp(length: int, factor: int, like: Tensor) -> Tensor:
    """Rises over the overlap from either end; never zero, so that the border of the picture has a weight."""
    distance = torch.arange(1, length + 1, dtype=like.dtype, device=like.device)
    return torch.minimum(distance, distance.flip(0)).clamp(max=factor * OVERLAP)
