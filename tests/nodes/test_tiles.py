"""Decoding in tiles against decoding at once, for decoders that look no further than the overlap."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nodes.host.tiles import LEAST_SIDE, MOST_OVERHEAD, decode_tiled, layouts

FACTOR = 2
SIZES = [(64, 64), (96, 96), (128, 128), (160, 160), (128, 96), (64, 96), (65, 64), (300, 70), (33, 90)]


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    layers = [nn.Conv2d(4, 8, 3, padding=1), nn.Tanh(), nn.Upsample(scale_factor=FACTOR), nn.Conv2d(8, 3, 3, padding=1)]
    return nn.Sequential(*layers).double().requires_grad_(False)


@pytest.mark.parametrize("size", SIZES)
def test_tiles_cover_every_cell_with_their_overlap(size):
    for layout in layouts(*size):
        for axis in (layout.rows, layout.columns):
            ends = [start + axis.side for start in axis.starts]
            assert axis.starts[0] == 0 and ends[-1] == axis.length
            assert all(end - start >= axis.overlap for end, start in zip(ends[:-1], axis.starts[1:], strict=True))
            assert axis.count == 1 or axis.side >= LEAST_SIDE


@pytest.mark.parametrize("size", SIZES)
def test_more_tiles_are_smaller_and_their_area_is_little_more_than_that_of_the_latent(size):
    found = layouts(*size)
    assert found
    assert all(layout.overhead <= MOST_OVERHEAD for layout in found)
    assert [layout.count for layout in found] == sorted(layout.count for layout in found)
    shares = [layout.share for layout in found]
    assert shares == sorted(set(shares), reverse=True) and shares[0] < 1


def test_four_tiles_of_72_cells_for_128():
    layout = next(layout for layout in layouts(128, 128) if layout.rows.count == layout.columns.count == 2)
    assert (layout.rows.starts, layout.rows.side) == ([0, 56], 72)
    assert layout.overhead == pytest.approx(1.27, abs=0.01)


def test_small_latents_have_no_tiles():
    assert layouts(48, 48) == []


@pytest.mark.parametrize("size", SIZES)
def test_tiles_blend_into_the_whole_away_from_their_own_edges(decoder, size):
    latents = torch.randn(2, 4, *size, dtype=torch.float64)
    whole, tiled = decoder(latents), decode_tiled(decoder, latents, FACTOR, layouts(*size)[-1])
    assert tiled.shape == whole.shape
    # A tile's outermost cells see the padding of its own edge, but count least there.
    assert (tiled - whole).abs().max() < 0.2 * whole.abs().max()
    assert (tiled - whole).abs().mean() < 0.01 * whole.abs().mean()


def test_a_decoder_without_reach_is_the_same_in_tiles():
    latents = torch.randn(1, 3, 100, 130, dtype=torch.float64)
    tiled = decode_tiled(nn.Upsample(scale_factor=FACTOR), latents, FACTOR, layouts(100, 130)[-1])
    torch.testing.assert_close(tiled, nn.Upsample(scale_factor=FACTOR)(latents))


def test_gradients_are_those_of_the_same_sum_without_recomputation(decoder):
    latents = torch.randn(1, 4, 90, 70, dtype=torch.float64)
    weight = torch.randn(1, 3, 180, 140, dtype=torch.float64)
    leaf, layout = latents.clone().requires_grad_(), layouts(90, 70)[-1]

    def value(z):
        return (weight * decode_tiled(decoder, z, FACTOR, layout)).sum()

    value(leaf).backward()
    direction = torch.randn_like(latents)
    step = 1e-5
    with torch.no_grad():
        ahead, behind = (value(latents + s * direction) for s in (step, -step))
    assert (leaf.grad * direction).sum() == pytest.approx(((ahead - behind) / (2 * step)).item(), rel=1e-6)


def test_latents_of_one_frame_keep_their_frame_for_the_decoder():
    def decode(latents):
        assert latents.ndim == 5
        return latents[:, :3, 0]

    latents = torch.randn(1, 4, 1, 80, 70)
    torch.testing.assert_close(decode_tiled(decode, latents, 1, layouts(80, 70)[0]), latents[:, :3, 0])
