"""Codebooks of first stages (VQ), disabled while the pack works on a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_ROWS = 4096
"""Number of latent positions compared with a codebook at a time."""


class Codebook(nn.Module):
    """Nearest entry of a codebook ``[entries, channels]``, with a straight-through gradient."""

    def __init__(self, entries: Tensor):
        super().__init__()
        # In full precision whatever the VAE's: neighbouring entries are close.
        self.entries = nn.Parameter(entries.float().clone(), requires_grad=False)
        self.enabled = True

    def forward(self, z: Tensor) -> Tensor:
        if not self.enabled:
            return z
        places = z.detach().movedim(1, -1)
        nearest = [self._nearest(rows) for rows in places.flatten(0, -2).float().split(_ROWS)]
        quantised = self.entries[torch.cat(nearest)].view(places.shape).movedim(-1, 1)
        return z + (quantised.to(z.dtype) - z).detach()

    def _nearest(self, rows: Tensor) -> Tensor:
        # By differences: products would lose in the host's fast precisions what tells neighbours apart.
        return torch.cdist(rows, self.entries, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)


@contextmanager
def unquantised(network: nn.Module) -> Iterator[None]:
    """Disable the codebooks of a network, so that gradients agree with finite differences."""
    codebooks = [module for module in network.modules() if isinstance(module, Codebook)]
    try:
        for codebook in codebooks:
            codebook.enabled = False
        yield
    finally:
        for codebook in codebooks:
            codebook.enabled = True
