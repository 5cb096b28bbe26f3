"""Paint under a mask is told from a picture, opaque and half transparent."""

from __future__ import annotations

import pytest
import torch

from vipaint_ops.images.masks import box, half_plane, window_mean
from vipaint_ops.images.paint import painted

MASKS = [box(128, 128, 60).float(), half_plane(128, 128).float()]


def photograph(seed: int) -> torch.Tensor:
    """Smooth random colours, as wide as [-0.9, 0.9]."""
    smooth = window_mean(torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(seed)), 12)
    return 0.9 * smooth / smooth.abs().amax()


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("opacity", [0.4, 0.7, 0.95, 1.0])
def test_paint_is_told_from_photographs(mask, opacity):
    """Opaque paint always, half transparent one in most cases, and nothing else."""
    mask, paint = mask.reshape(1, 1, 128, 128), torch.tensor([-1.0, -0.5, 0.7]).reshape(1, 3, 1, 1)
    pictures = [photograph(seed) for seed in range(30)]
    covered = [torch.where(mask == 0, (1 - opacity) * picture + opacity * paint, picture) for picture in pictures]
    found = sum(painted(picture, mask) for picture in covered) / len(covered)
    assert found == 1 if opacity == 1 else found > 0.75
    assert not any(painted(picture, mask) for picture in pictures)


@pytest.mark.parametrize("mask", MASKS)
def test_what_is_no_paint(mask):
    """Another picture, noise, and the grey of a padded picture."""
    picture, mask = photograph(0), mask.reshape(1, 1, 128, 128)
    others = (photograph(1), torch.randn_like(picture) / 3, torch.zeros_like(picture))
    assert not any(painted(torch.where(mask == 0, other, picture), mask) for other in others)
