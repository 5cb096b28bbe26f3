"""ComfyUI's VAE as a differentiable decoder and encoder."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...vipaint_ops.errors import InputError
from .gradients import clone_weights_when_used, is_dynamic
from .tiles import TILE, decode_tiled

_BACKWARD = 4
"""Memory of a backward pass in units of the host's estimate for a forward pass."""


class HostVAE:
    """The networks of a VAE, from latents in the scale of ComfyUI's LATENT to images in [-1, 1].

    The host's ``decode`` clamps, and without memory it falls back to a decoder without gradients. This class does not
    clamp. If memory is short, it decodes in tiles that are recomputed in the backward pass.

    Raises:
        InputError: the VAE is not one of RGB images.
    """

    def __init__(self, vae: Any):
        vae.throw_exception_if_invalid()
        self._vae = vae
        self.patcher = vae.patcher
        if is_dynamic(vae.patcher):
            self.patcher = vae.patcher.clone()
            clone_weights_when_used(self.patcher)
        if vae.output_channels != 3:
            raise InputError(f"vae makes {vae.output_channels} channels; VIPaint needs 3 (RGB)")
        self.factor = int(vae.spacial_compression_decode())
        self.latent_channels = int(vae.latent_channels)
        self._video = vae.latent_dim == 3
        low, middle, high = vae.process_output(torch.tensor([-0.5, 0.0, 0.5])).tolist()
        self._gain, self._offset = high - low, middle

    @property
    def network(self) -> torch.nn.Module:
        return self.patcher.model

    def memory(self, latent_shape: tuple[int, ...]) -> float:
        """Approximate memory in bytes of decoding with a backward pass."""
        return _BACKWARD * self._vae.memory_used_decode(latent_shape, self._vae.vae_dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[batch, channels, (1,) h, w]`` to images ``[batch, 3, height, width]``, unclamped."""
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
        """Images in [-1, 1] to latents, with one frame for a video VAE."""
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
