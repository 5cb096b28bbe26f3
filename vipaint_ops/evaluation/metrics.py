"""Metrics of samples: error against a truth, fit to an observation, diversity, distance to an exact posterior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..measurement.observation import Observation
from ..operators.base import require_pictures

PEAK = 2.0
"""The range of a picture in [-1, 1]."""

SSIM_WINDOW = 11
"""Side of the window of :func:`ssim` in pixels."""


def psnr(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, ``[batch]``; infinite for equal pictures.

    The peak is 2, the range of [-1, 1]: the same value as for pictures in [0, 1] with peak 1. One value a picture,
    where ``kornia.metrics.psnr`` gives one for the batch. Pictures are not clamped.

    Args:
        x, y: pictures in [-1, 1], ``[batch, channels, height, width]``; either may be a batch of one.
        mask: weights of the pixels in [0, 1], broadcastable to ``[batch, channels, height, width]``.
    """
    require_pictures(x=x, y=y)
    error = (x - y) ** 2
    weight = torch.ones_like(error) if mask is None else mask.expand_as(error)
    mse = (weight * error).flatten(1).sum(1) / weight.flatten(1).sum(1)
    return 10 * torch.log10(PEAK**2 / mse)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each picture, ``[batch]``, at most 1 (Wang et al. 2004).

    Gaussian window of 11 pixels and standard deviation 1.5, valid positions only. Pictures are mapped to [0, 1]
    first, as is usual: the index depends on the offset of the range.

    Args:
        x, y: pictures in [-1, 1], ``[batch, channels, height, width]``; either may be a batch of one.

    Raises:
        InputError: a side is smaller than the window.
    """
    from kornia.metrics import ssim as ssim_map

    require_pictures(x=x, y=y)
    if x.shape[1:] != y.shape[1:]:
        raise InputError(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; SSIM compares pictures of one size")
    if min(x.shape[2:]) < SSIM_WINDOW:
        size = "x".join(map(str, x.shape[2:]))
        raise InputError(f"images are {size}; SSIM needs sides of {SSIM_WINDOW} pixels or more")
    x, y = (side.expand(max(len(x), len(y)), -1, -1, -1) for side in (x, y))
    return ssim_map((x + 1) / 2, (y + 1) / 2, window_size=SSIM_WINDOW, max_val=1.0, padding="valid").flatten(1).mean(1)


def consistency(images: Tensor, observation: Observation) -> Tensor:
    """Root-mean-square residual of each picture over the measurements, in noise standard deviations, ``[batch]``.

    About 1 for posterior samples with the correct noise level. Lower values fit the noise, higher ones miss the
    observation.
    """
    residual = observation.residual(images).flatten(1)
    return (residual**2).sum(1).div(observation.observed.sum()).sqrt() / observation.noise_std


def seam(images: Tensor, mask: Tensor) -> Tensor:
    """How much a picture jumps at the edge of its hole, ``[batch]``: about 1 without a seam, above 1 with one; NaN
    if every step is across the edge.

    The absolute differences of neighbouring pixels across the edge, over the mean of those within two pixels of the
    edge, on both sides of it and in the same direction.

    Args:
        images: ``[batch, channels, height, width]``.
        mask: ``[1, 1, height, width]``, 1 observed and 0 hidden, with both.

    Raises:
        InputError: the mask has no edge.
    """
    require_pictures(images=images, mask=mask)
    if not (mask == 0).any() or not (mask == 1).any():
        raise InputError("mask has no edge: it needs observed pixels (1) and hidden ones (0)")
    near = F.max_pool2d(mask, 5, stride=1, padding=2) + F.max_pool2d(-mask, 5, stride=1, padding=2)
    across, expected = images.new_zeros(2, len(images))
    for dim in (-2, -1):
        length = images.shape[dim] - 1
        steps = (images.narrow(dim, 1, length) - images.narrow(dim, 0, length)).abs().mean(1)
        here, next_one = (mask.narrow(dim, start, length)[0, 0] for start in (0, 1))
        close = near.narrow(dim, 0, length)[0, 0] * near.narrow(dim, 1, length)[0, 0] > 0
        if (here != next_one).any():
            across = across + steps[:, here != next_one].sum(1)
            expected = expected + (here != next_one).sum() * steps[:, (here == next_one) & close].mean(1)
    smallest = torch.finfo(images.dtype).tiny
    return (across + smallest) / (expected + smallest)


def diversity(images: Tensor, mask: Tensor | None = None) -> float:
    """Mean root-mean-square distance between pairs of samples, in the units of the images; NaN for one sample.

    Args:
        images: samples, ``[batch, channels, height, width]``.
        mask: ``[1, 1, height, width]``, 1 observed and 0 hidden. If given, only hidden pixels count.
    """
    weight = torch.ones_like(images[:1]) if mask is None else (1 - mask).expand_as(images[:1])
    distances = torch.pdist((images * weight.sqrt()).flatten(1))
    return (distances.mean() / weight.sum().sqrt()).item()


def sliced_wasserstein(
    x: Tensor, y: Tensor, projections: int = 1000, *, generator: torch.Generator, order: int = 1
) -> float:
    """Sliced Wasserstein distance between two sets of samples, in the units of the samples.

    The mean of W_order^order over random unit directions, to the power 1 / order. In one dimension the distance of
    the two empirical laws is exact, also for unequal counts. Two finite sets of one law have a positive distance: as
    a reference, use the distance of two sets drawn from the truth.

    Args:
        x, y: samples, ``[n, ...]`` and ``[m, ...]``.
        projections: number of directions.
        generator: of the directions; on the CPU.
        order: order of the distance, 1 or more.
    """
    directions = torch.randn(x[0].numel(), projections, generator=generator, dtype=torch.float64)
    directions = directions.to(x.dtype).to(x.device)  # in this order: a device may have no float64
    directions = directions / directions.norm(dim=0)
    quantiles_x, quantiles_y = ((s.flatten(1) @ directions).sort(dim=0).values for s in (x, y))
    n, m = len(x), len(y)
    # Both quantile functions are constant between these levels, in units of 1 / (n m).
    levels = torch.cat([m * torch.arange(1, n + 1), n * torch.arange(1, m + 1)]).unique()
    width = torch.diff(levels, prepend=levels.new_zeros(1)).to(x) / (n * m)
    last = (levels - 1).to(x.device)
    gap = (quantiles_x[last // m] - quantiles_y[last // n]).abs() ** order
    return (width @ gap).mean().item() ** (1 / order)


def energy_distance(x: Tensor, y: Tensor, mask: Tensor | None = None) -> float:
    """Squared energy distance between two sets of pictures (Szekely & Rizzo 2013), in root-mean-square distances.

    2 E|x - y| - E|x - x'| - E|y - y'| over pairs of different pictures. The estimate is unbiased: for two sets of one
    law its mean is 0, and single values may be negative.

    Args:
        x, y: ``[n, channels, height, width]`` and ``[m, ...]``, two or more each.
        mask: ``[1, 1, height, width]``, 1 observed and 0 hidden. If given, only hidden pixels count.
    """
    weight = torch.ones_like(x[:1]) if mask is None else (1 - mask).expand_as(x[:1])
    between = torch.cdist((x * weight.sqrt()).flatten(1), (y * weight.sqrt()).flatten(1)).mean() / weight.sum().sqrt()
    return 2 * between.item() - diversity(x, mask) - diversity(y, mask)


class MomentErrors(NamedTuple):
    """Errors of the first two moments of samples against an exact posterior."""

    mean: float
    """Root-mean-square error of the mean, in posterior standard deviations; 1 / sqrt(n) for n exact samples."""
    log_std: float
    """Mean of ln(std of samples / posterior std) over dimensions; negative for samples with too little spread."""


def moment_errors(samples: Tensor, mean: Tensor, std: Tensor) -> MomentErrors:
    """Compare the marginal moments of samples with the exact ones.

    ``log_std`` is corrected for the bias of ln(sample std) of n Gaussian samples: for exact samples its mean is 0 for
    any n.

    Args:
        samples: ``[n, ...]``, two or more.
        mean, std: of the exact posterior, broadcastable to one sample; std positive.
    """
    freedom = len(samples) - 1
    shortfall = 0.5 * (torch.digamma(torch.tensor(freedom / 2, dtype=torch.float64)).item() - math.log(freedom / 2))
    mean_error = ((samples.mean(0) - mean) / std).square().mean().sqrt().item()
    return MomentErrors(mean_error, (samples.std(0) / std).log().mean().item() - shortfall)
