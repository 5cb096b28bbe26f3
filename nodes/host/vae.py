"""ComfyUI's VAE as a differentiable decoder and encoder."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...vipaint_ops.errors import InputError
from .blocks import checkpointed_blocks, inner_blocks
from .gradients import clone_weights_when_used, is_dynamic
from .memory import MARGIN, Cost, Form, form, in_parts, measure
from .tiles import Layout, decode_tiled, layouts

_DIVERGED = 1000.0
"""Latents, of a few units in the host's scale, are this large only in a run that diverges."""
_CORNER = 32
"""Side in cells of the latent on which the memory of the decoder is measured; it grows with the area."""


class HostVAE:
    """The networks of a VAE, from latents in the scale of ComfyUI's LATENT to images in [-1, 1].

    The host's ``decode`` clamps, and without memory it falls back to a decoder without gradients. This class does not
    clamp. If memory is short, it decodes fewer rows at a time, then recomputes the decoder's blocks in the backward
    pass, then decodes tiles. :meth:`prepare` and :meth:`lay_out` come before the first call of a network.

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
        self._layout: Layout | None = None

    @property
    def network(self) -> torch.nn.Module:
        return self.patcher.model

    def forward_memory(self, latent_shape: tuple[int, ...]) -> float:
        """The host's estimate for decoding one row without gradient, in bytes."""
        shape = self._framed(torch.empty(latent_shape, device="meta")).shape
        return self._vae.memory_used_decode(tuple(shape), self._vae.vae_dtype)

    def prepare(self, latent_shape: tuple[int, ...], gradient: bool, checkpointing: str) -> None:
        """Measure the memory of one row, before the first :meth:`decode`.

        Args:
            latent_shape: of one row, with batch.
            gradient: whether decoder or encoder are differentiated.
            checkpointing: whether blocks are recomputed in the backward pass: "auto" if memory is short, "on", "off".
        """
        latents = self._framed(torch.zeros(latent_shape, device=self._vae.device))
        self._checkpointing = checkpointing
        self._cost = Cost(self.forward_memory(latent_shape))
        if gradient:
            corner = latents[..., :_CORNER, :_CORNER]
            found = measure(self._decode, corner, self.network, inner_blocks(self.network))
            self._cost = found.scaled(latents.numel() / corner.numel())._replace(forward=self._cost.forward)

    @property
    def least(self) -> float:
        """Memory in bytes of decoding one row, with a gradient if there is one, in the cheapest form."""
        return max(self._row.forward, self._row.least(self._checkpointing))

    def lay_out(self, cells: tuple[int, int], free: float, reserved: float) -> None:
        """Choose the tiles for a latent of ``cells``: none if a row fits into ``free`` bytes.

        The choice holds for all decodes, so that their differences are not those of the tiles.

        Args:
            reserved: bytes that each decode leaves for other networks.
        """
        self._reserved = reserved
        found = layouts(*cells) if self.least > free else []
        fitting = [layout for layout in found if layout.share * self.least <= free]
        self._layout = next(iter(fitting or found[-1:]), None)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[batch, channels, (1,) h, w]`` to images ``[batch, 3, height, width]``, unclamped.

        Raises:
            InputError: NaN or infinite values that are the VAE's own, as of half precision.
        """
        latents = self._framed(latents)
        run = self._form(latents, self._cost) if self._layout is None else self._form(latents[:1], self._row)

        def decode(part: Tensor) -> Tensor:
            with self._blocks(run):
                return self._decode(part)

        if self._layout is None:
            pictures = in_parts(decode, latents, run.rows)
        else:
            pictures = decode_tiled(decode, latents, self.factor, self._layout)
        if not pictures.isfinite().all() and latents.abs().max() < _DIVERGED:
            raise InputError(not_finite(self._vae))
        return 2 * (self._gain * pictures + self._offset) - 1

    def encode(self, pictures: Tensor) -> Tensor:
        """Images in [-1, 1] to latents, with one frame for a video VAE. A row takes less memory than in the decoder.

        Raises:
            InputError: as :meth:`decode`.
        """
        x = self._vae.process_input((pictures + 1) / 2)
        x = x[:, :, None] if self._video else x
        run = self._form(x, self._cost)

        def encode(part: Tensor) -> Tensor:
            with self._blocks(run):
                return self._vae.first_stage_model.encode(part.to(self._vae.vae_dtype)).to(pictures.dtype)

        latents = in_parts(encode, x, run.rows)
        if not latents.isfinite().all() and x.abs().max() < _DIVERGED:
            raise InputError(not_finite(self._vae))
        return latents

    def _framed(self, latents: Tensor) -> Tensor:
        if latents.ndim == 5 and not self._video:
            return latents[:, :, 0]
        return latents[:, :, None] if latents.ndim == 4 and self._video else latents

    def _decode(self, latents: Tensor) -> Tensor:
        y = self._vae.first_stage_model.decode(latents.to(self._vae.vae_dtype)).to(latents.dtype)
        return y[:, :, 0] if y.ndim == 5 else y

    @property
    def _row(self) -> Cost:
        """The cost of what is in memory together at least: a row, or a tile of it."""
        return self._cost if self._layout is None else self._cost.scaled(self._layout.share)

    def _form(self, x: Tensor, cost: Cost) -> Form:
        free = MARGIN * comfy.model_management.get_free_memory(self._vae.device) - self._reserved
        if torch.is_grad_enabled() and x.requires_grad:
            return form(cost, len(x), free, self._checkpointing)
        return Form(max(1, int(free // cost.forward)), False)

    def _blocks(self, run: Form) -> AbstractContextManager[None]:
        return checkpointed_blocks(inner_blocks(self.network)) if run.recomputed else nullcontext()


def not_finite(vae: Any) -> str:
    """The message for NaN or infinite values that a VAE makes of finite ones."""
    given = f"vae gives NaN or infinite values in {str(vae.vae_dtype).removeprefix('torch.')}"
    if vae.vae_dtype == torch.float32:
        return f"{given}: its file is damaged, load another one"
    return f"{given}: start ComfyUI with --fp32-vae"
