"""How good samples are: against a truth, against the observation, against each other, against an exact posterior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..measurement.observation import Observation

PEAK = 2.0
"""The range of a picture in [-1, 1]."""

SSIM_WINDOW = 11
"""Side of the window of :func:`ssim` in pixels."""


def psnr(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, ``[batch]``; infinite where the two are equal.

    The peak is 2, the range of [-1, 1], so the figure is that of the same pictures in [0, 1] with peak 1. Unlike
    ``kornia.metrics.psnr``, which pools the squared error of a whole batch, every picture has its own. Nothing is
    clamped.

    Args:
        x, y: pictures in [-1, 1], ``[batch, channels, height, width]``; either may be a batch of one.
        mask: weights of the pixels, broadcastable to ``[batch, channels, height, width]``: 1 counts, 0 does not.
    """
    error = (x - y) ** 2
    weight = torch.ones_like(error) if mask is None else mask.expand_as(error)
    mse = (weight * error).flatten(1).sum(1) / weight.flatten(1).sum(1)
    return 10 * torch.log10(PEAK**2 / mse)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each picture, ``[batch]``, at most 1 (Wang et al. 2004).

    Gaussian window of 11 pixels and std 1.5 over its valid positions, on pictures mapped to [0, 1], as usual:
    the index is not invariant to a shift of the range.

    Args:
        x, y: pictures in [-1, 1], ``[batch, channels, height, width]``; either may be a batch of one.

    Raises:
        InputError: a side is smaller than the window.
    """
    from kornia.metrics import ssim as ssim_map

    if min(x.shape[2:]) < SSIM_WINDOW:
        size = "x".join(map(str, x.shape[2:]))
        raise InputError(f"images are {size}; SSIM needs sides of {SSIM_WINDOW} pixels or more")
    x, y = (side.expand(max(len(x), len(y)), -1, -1, -1) for side in (x, y))
    return ssim_map((x + 1) / 2, (y + 1) / 2, window_size=SSIM_WINDOW, max_val=1.0, padding="valid").flatten(1).mean(1)


def consistency(images: Tensor, observation: Observation) -> Tensor:
    """Root-mean-square residual of each picture over the measurements, in noise standard deviations, ``[batch]``.

    A draw from the posterior under a correct noise level has about 1; below it fits the noise, above it misses
    the observation.
    """
    residual = observation.residual(images).flatten(1)
    return (residual**2).sum(1).div(observation.observed.sum()).sqrt() / observation.noise_std


def diversity(images: Tensor, mask: Tensor | None = None) -> float:
    """Mean root-mean-square distance between pairs of samples, in the units of the images; NaN for one sample.

    Args:
        images: samples, ``[batch, channels, height, width]``.
        mask: ``[1, 1, height, width]``, 1 observed and 0 hidden; when given, only hidden pixels count.
    """
    weight = torch.ones_like(images[:1]) if mask is None else (1 - mask).expand_as(images[:1])
    distances = torch.pdist((images * weight.sqrt()).flatten(1))
    return (distances.mean() / weight.sum().sqrt()).item()


def sliced_wasserstein(
    x: Tensor, y: Tensor, projections: int = 1000, *, generator: torch.Generator, order: int = 1
) -> float:
    """Sliced Wasserstein distance between two sets of samples, in the units of the samples.

    The mean over random unit directions of the one-dimensional W_order^order, exact between the two empirical laws
    for equal and unequal counts, to the power 1 / order. Between finite sets it is positive even when their laws
    are the same: compare with two sets drawn from the truth.

    Args:
        x, y: samples, ``[n, ...]`` and ``[m, ...]``.
        generator: draws the directions; on the CPU.
    """
    directions = torch.randn(x[0].numel(), projections, generator=generator, dtype=torch.float64).to(x)
    directions = directions / directions.norm(dim=0)
    quantiles_x, quantiles_y = ((s.flatten(1) @ directions).sort(dim=0).values for s in (x, y))
    n, m = len(x), len(y)
    # Both quantile functions are constant between these levels, counted in units of 1 / (n m).
    levels = torch.cat([m * torch.arange(1, n + 1), n * torch.arange(1, m + 1)]).unique()
    width = torch.diff(levels, prepend=levels.new_zeros(1)).to(x) / (n * m)
    last = (levels - 1).to(x.device)
    gap = (quantiles_x[last // m] - quantiles_y[last // n]).abs() ** order
    return (width @ gap).mean().item() ** (1 / order)


def energy_distance(x: Tensor, y: Tensor, mask: Tensor | None = None) -> float:
    """Squared energy distance between two sets of pictures (Szekely & Rizzo 2013), in root-mean-square distances.

    2 E|x - y| - E|x - x'| - E|y - y'| over pairs of different pictures: without bias, so that two sets of one law give
    0 on average, and single values may be negative.

    Args:
        x, y: ``[n, channels, height, width]`` and ``[m, ...]``, two or more each.
        mask: ``[1, 1, height, width]``, 1 observed and 0 hidden; when given, only hidden pixels count.
    """
    weight = torch.ones_like(x[:1]) if mask is None else (1 - mask).expand_as(x[:1])
    between = torch.cdist((x * weight.sqrt()).flatten(1), (y * weight.sqrt()).flatten(1)).mean() / weight.sum().sqrt()
    return 2 * between.item() - diversity(x, mask) - diversity(y, mask)


class MomentErrors(NamedTuple):
    """Errors of the first two moments of samples against an exact posterior."""

    mean: float
    """Root-mean-square error of the mean, in posterior standard deviations; 1 / sqrt(n) from n exact samples."""
    log_std: float
    """Mean of ln(std of samples / posterior std) over dimensions: negative where the samples are too narrow."""


def moment_errors(samples: Tensor, mean: Tensor, std: Tensor) -> MomentErrors:
    """Compare the marginal moments of samples with the exact ones.

    The expected shortfall of ln(sample std) at n Gaussian samples is taken out of ``log_std``, which is therefore
    zero on average for exact samples, however few.

    Args:
        samples: ``[n, ...]``, two or more.
        mean, std: the exact posterior's, broadcastable to one sample; std positive.
    """
    freedom = len(samples) - 1
    shortfall = 0.5 * (torch.digamma(torch.tensor(freedom / 2, dtype=torch.float64)).item() - math.log(freedom / 2))
    mean_error = ((samples.mean(0) - mean) / std).square().mean().sqrt().item()
    return MomentErrors(mean_error, (samples.std(0) / std).log().mean().item() - shortfall)
