"""Decoding in tiles against decoding at once, for decoders that look no further than the overlap."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nodes.host.tiles import OVERLAP, TILE, decode_tiled

FACTOR = 2


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    layers = [nn.Conv2d(4, 8, 3, padding=1), nn.Tanh(), nn.Upsample(scale_factor=FACTOR), nn.Conv2d(8, 3, 3, padding=1)]
    return nn.Sequential(*layers).double().requires_grad_(False)


@pytest.mark.parametrize("size", [(TILE, TILE), (TILE + 1, 20), (150, TILE + OVERLAP), (7, 100)])
def test_tiles_blend_into_the_whole_away_from_their_own_edges(decoder, size):
    latents = torch.randn(2, 4, *size, dtype=torch.float64)
    whole, tiled = decoder(latents), decode_tiled(decoder, latents, FACTOR)
    assert tiled.shape == whole.shape
    # A tile's outermost cells see the padding of its own edge, but count least there.
    assert (tiled - whole).abs().max() < 0.2 * whole.abs().max()
    assert (tiled - whole).abs().mean() < 0.01 * whole.abs().mean()


def test_a_decoder_without_reach_is_the_same_in_tiles():
    latents = torch.randn(1, 3, 100, 130, dtype=torch.float64)
    tiled = decode_tiled(nn.Upsample(scale_factor=FACTOR), latents, FACTOR)
    torch.testing.assert_close(tiled, nn.Upsample(scale_factor=FACTOR)(latents))


def test_gradients_are_those_of_the_same_sum_without_recomputation(decoder):
    latents = torch.randn(1, 4, 90, 70, dtype=torch.float64)
    weight = torch.randn(1, 3, 180, 140, dtype=torch.float64)
    leaf = latents.clone().requires_grad_()
    (weight * decode_tiled(decoder, leaf, FACTOR)).sum().backward()
    direction = torch.randn_like(latents)
    step = 1e-5
    with torch.no_grad():
        ahead, behind = ((weight * decode_tiled(decoder, latents + s * direction, FACTOR)).sum() for s in (step, -step))
    assert (leaf.grad * direction).sum() == pytest.approx(((ahead - behind) / (2 * step)).item(), rel=1e-6)


def test_latents_of_one_frame_keep_their_frame_for_the_decoder():
    def decode(latents):
        assert latents.ndim == 5
        return latents[:, :3, 0]

    latents = torch.randn(1, 4, 1, 80, 70)
    torch.testing.assert_close(decode_tiled(decode, latents, 1), latents[:, :3, 0])
