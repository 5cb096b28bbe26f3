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


def most_different(images: Tensor, count: int) -> list[int]:
    """Numbers of ``count`` samples that differ most from each other, in the order of choice.

    The first is the medoid, which has the least mean distance to all others. Each further one has the greatest distance
    to the nearest of those before (farthest-point order, Gonzalez 1985). Ties go to the earlier sample.

    Args:
        images: samples, ``[n, channels, height, width]``.
        count: from 1 to n.

    Raises:
        InputError: ``count`` is out of its range.
    """
    if not 1 <= count <= len(images):
        raise InputError(f"count is {count}; there are {len(images)} samples")
    distances = torch.cdist(*2 * (images.flatten(1).double(),), compute_mode="donot_use_mm_for_euclid_dist")
    chosen = [int(distances.sum(1).argmin())]
    while len(chosen) < count:
        nearest = distances[:, chosen].min(1).values
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
    return chosen
