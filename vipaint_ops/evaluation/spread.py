"""What samples of one restoration agree on, and where they differ."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError


class Spread(NamedTuple):
    """Moments of samples, pixel by pixel."""

    mean: Tensor
    """``[1, channels, height, width]``: the estimate of least mean squared error. It looks blurred."""
    std: Tensor
    """``[1, 1, height, width]``: standard deviation, root mean square over channels, in the units of the images."""


def spread(images: Tensor) -> Spread:
    """Mean and standard deviation of samples, ``[n, channels, height, width]``, pixel by pixel.

    The variance is the unbiased one, with n - 1.

    Raises:
        InputError: fewer than two samples.
    """
    if len(images) < 2:
        raise InputError("images are one sample; a spread needs two or more")
    return Spread(images.mean(0, keepdim=True), images.var(0).mean(0).sqrt()[None, None])


class Choice(NamedTuple):
    """A sample in the order of :func:`most_different`."""

    sample: int
    distance: float
    """Root-mean-square distance to the nearest sample chosen before; for the first, its mean distance to the others."""


def most_different(images: Tensor, count: int) -> list[Choice]:
    """``count`` samples that differ most from each other, in the order of choice.

    The first is the medoid, which has the least mean distance to all others. Each further one has the greatest distance
    to the nearest of those before (farthest-point order, Gonzalez 1985). Ties go to the earlier sample.

    Args:
        images: samples, ``[n, channels, height, width]``, two or more.
        count: from 1 to n.

    Raises:
        InputError: fewer than two samples, or ``count`` is out of its range.
    """
    if len(images) < 2:
        raise InputError("images are one sample; a choice needs two or more")
    if not 1 <= count <= len(images):
        raise InputError(f"count is {count}; there are {len(images)} samples")
    pixels = images.flatten(1).double() / images[0].numel() ** 0.5
    distances = torch.cdist(pixels, pixels, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum(1) / (len(images) - 1)
    first = int(mean.argmin())
    chosen = [Choice(first, mean[first].item())]
    nearest = distances[first]
    while len(chosen) < count:
        nearest = nearest.index_fill(0, torch.tensor([choice.sample for choice in chosen]), -1.0)
        farthest = int(nearest.argmax())
        chosen.append(Choice(farthest, nearest[farthest].item()))
        nearest = nearest.minimum(distances[farthest])
    return chosen
