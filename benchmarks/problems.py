"""Problems with an exact answer, shared by the exactness benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor

from vipaint_ops import NoiseSchedule, Observation, operators
from vipaint_ops.analytic import GaussianMixturePrior

DOUBLE = torch.float64


def power_law_prior(schedule: NoiseSchedule, side: int = 16, exponent: float = 2.5, std: float = 0.5):
    """An image-like Gaussian prior on ``[1, side, side]``: power-law spectrum, periodic, pixel std ``std``."""
    frequency = torch.fft.fftfreq(side, dtype=DOUBLE) * side
    spectrum = (1 + frequency[:, None] ** 2 + frequency[None] ** 2) ** (-exponent / 2)
    kernel = torch.fft.ifft2(spectrum).real
    i = torch.arange(side)
    rows = (i[:, None, None, None] - i[None, None, :, None]) % side
    columns = (i[None, :, None, None] - i[None, None, None, :]) % side
    covariance = std**2 * (kernel / kernel[0, 0])[rows, columns].reshape(side**2, side**2)
    covariance += 1e-4 * torch.eye(side**2, dtype=DOUBLE)
    one = torch.ones(1, dtype=DOUBLE)
    return GaussianMixturePrior(one, torch.zeros(1, 1, side, side, dtype=DOUBLE), covariance[None], schedule)


def inpainting_problem(prior: GaussianMixturePrior, mask_name: str, noise_std: float, generator: torch.Generator):
    """A draw of the prior seen through a half or box mask; returns the observation and its exact posterior."""
    side = prior.latent_shape[-1]
    mask = torch.ones(1, 1, side, side, dtype=DOUBLE)
    if mask_name == "half":
        mask[..., side // 2 :] = 0
    else:
        mask[..., side // 4 : -side // 4, side // 4 : -side // 4] = 0
    x = prior.sample(1, generator)
    y = mask * (x + noise_std * torch.randn(x.shape, generator=generator, dtype=DOUBLE))
    observation = Observation(y, operators.Inpainting(mask), noise_std)
    return observation, prior.posterior(observation)


def mixture_prior(dimension: int, generator: torch.Generator) -> GaussianMixturePrior:
    """The 25-component mixture of MCGdiff (Cardoso et al. 2023, section 4) with uniform normalised weights."""
    grid = torch.arange(-2, 3, dtype=DOUBLE) * 8
    pairs = torch.cartesian_prod(grid, grid)
    means = pairs.repeat(1, dimension // 2)
    betas = torch.linspace(1e-4, 0.02, 999, dtype=DOUBLE)
    weights = torch.rand(25, generator=generator, dtype=DOUBLE)
    return GaussianMixturePrior(
        weights, means, torch.eye(dimension, dtype=DOUBLE).expand(25, -1, -1), NoiseSchedule.vp(betas)
    )


def mixture_problem(dimension: int, measurements: int, seed: int):
    """One problem of the protocol: prior, observation and exact posterior."""
    generator = torch.Generator().manual_seed(seed)
    prior = mixture_prior(dimension, generator)
    matrix: Tensor = torch.randn(measurements, dimension, generator=generator, dtype=DOUBLE)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.rand(measurements, generator=generator, dtype=DOUBLE).sort(descending=True).values
    matrix = u @ values.diag() @ v
    noise_std = (torch.rand((), generator=generator, dtype=DOUBLE) * values.max()).item()
    x = prior.sample(1, generator)
    noise = noise_std * torch.randn(1, measurements, generator=generator, dtype=DOUBLE)
    observation = Observation(x @ matrix.T + noise, operators.Linear(matrix), noise_std)
    return prior, observation, prior.posterior(observation)
