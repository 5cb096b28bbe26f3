"""RED-diff: regularisation by the denoiser, an optimisation of the picture instead of a chain; and RED-diff V."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.streams import NoiseStreams
from ..inference.progress import reported
from ..measurement.observation import Observation
from ..settings import number
from .config import LogSnrConfig, SamplerConfig
from .driver import gaussian_only, sampler

BETAS = (0.9, 0.99)


@dataclass(frozen=True, kw_only=True)
class RedDiffConfig(SamplerConfig):
    """Published: 1000 steps, even in time, lambda 0.25 and Adam at 0.1 with betas 0.9 and 0.99.

    Attributes:
        weight: lambda, of mu - zh (the weighting called linear).
        rate: Adam's, in units of data_std.
    """

    steps: int = number(1000, 1)
    weight: float = number(0.25, 0)
    rate: float = number(0.1, 0)


@dataclass(frozen=True, kw_only=True)
class RedDiffVConfig(LogSnrConfig):
    """``steps`` noise levels, even in log-SNR; ``rate`` is Adam's at the first step, in units of data_std, and falls
    linearly to 0."""

    steps: int = number(1000, 1)
    rate: float = number(0.1, 0)


@sampler(RedDiffConfig, gaussian_only("RED-diff"))
def red_diff(prior, observation, config, streams, callback):
    """RED-diff (Mardani et al. 2024, algorithm 1), times descending: one Adam step for mu at each, along

        d/dmu |y - A D(mu)|^2 / (2 measurements) * latents + lambda (mu - zh(alpha_t mu + sigma_t eps)).

    The second term is (sigma_t / alpha_t) (eps_h - eps): no gradient through the denoiser. ``noise`` is the first eps.

    Raises:
        InputError: the observation's noise is not Gaussian.
    """
    mu = _start(prior, observation, streams)
    adam = torch.optim.Adam([mu], lr=config.rate * prior.data_std, betas=BETAS)
    per_measurement = prior.data_std**2 * mu[0].numel() / int(observation.observed.sum())
    for n, t in enumerate(reported(config.grid(prior), callback)):
        alpha, sigma = prior.schedule.level(t)
        eps = streams.normal(mu) if n else streams.first(mu)
        with torch.no_grad():
            away = mu - prior.denoise(alpha * mu + sigma * eps, t)
        mu.grad = per_measurement * _data_gradient(prior, observation, mu) + config.weight * away
        adam.step()
    return mu.detach()


@sampler(RedDiffVConfig, gaussian_only("RED-diff V"))
def red_diff_v(prior, observation, config, streams, callback):
    """RED-diff V, the control of the VIPaint papers: q = N(mu, diag(s^2)) fitted to the variational bound, its noise
    levels in no order, and a draw of q.

    Each step is one of Adam down -E ln p(y | z_0) + integral of E |eps_h - eps_q|^2 / 2 d ln SNR, eps_q being the
    prediction of q itself. The denoiser is not differentiated: its derivative is taken to be that for independent
    latents of variance data_std^2. All samples of a batch see the levels in the same scattered order. ``noise`` is the
    first eps.

    Raises:
        InputError: the observation's noise is not Gaussian.
    """
    times = config.grid(prior)
    widths = _widths([prior.schedule.log_snr(t) for t in times])
    mu = _start(prior, observation, streams)
    log_std = torch.full_like(mu, math.log(prior.data_std)).requires_grad_()
    rate = config.rate * prior.data_std
    adam = torch.optim.Adam([{"params": [mu], "lr": rate}, {"params": [log_std], "lr": config.rate}], betas=BETAS)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, len(times))
    for n, i in enumerate(reported(scattered(len(times)), callback)):
        alpha, sigma = prior.schedule.level(times[i])
        eps = streams.normal(mu) if n else streams.first(mu)
        with torch.no_grad():
            spread = log_std.exp() * streams.normal(mu)
            z = alpha * (mu + spread) + sigma * eps
            score = (alpha * prior.denoise(z, times[i]) - z) / sigma**2
            own = (alpha * mu - z) / ((alpha * log_std.exp()) ** 2 + sigma**2)
        gradient = _data_gradient(prior, observation, mu + spread) / observation.noise_std**2
        weight = len(times) * widths[i] * sigma**2 / ((alpha * prior.data_std) ** 2 + sigma**2)
        mu.grad = gradient + weight * alpha * (own - score)
        log_std.grad = mu.grad * spread
        adam.step()
        falling.step()
    return mu.detach() + log_std.detach().exp() * streams.normal(mu)


def _start(prior: CountedPrior, observation: Observation, streams: NoiseStreams) -> Tensor:
    """The encoded A^+ y, a row a stream."""
    with torch.no_grad():
        start = prior.encode(observation.operator.pinv(observation.y))
    return start.repeat(streams.rows, *[1] * (start.ndim - 1)).requires_grad_()


def _data_gradient(prior: CountedPrior, observation: Observation, z0: Tensor) -> Tensor:
    """d/dz_0 |y - A D(z_0)|^2 / 2."""
    with torch.enable_grad():
        z0 = z0.detach().requires_grad_()
        error = observation.residual(prior.decode(z0)).square().sum() / 2
        return torch.autograd.grad(error, z0)[0]


def scattered(count: int) -> list[int]:
    """0 to count - 1, ordered so that every stretch is spread over the whole range (multiples of the golden ratio)."""
    return sorted(range(count), key=lambda i: i * (math.sqrt(5) - 1) / 2 % 1)


def _widths(values: list[float]) -> list[float]:
    """The part of an increasing range that is nearest to each of its ``values``."""
    edges = [values[0], *((a + b) / 2 for a, b in pairwise(values)), values[-1]]
    return [b - a for a, b in pairwise(edges)]
