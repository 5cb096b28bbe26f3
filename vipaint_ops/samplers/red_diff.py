"""RED-diff: regularisation by the denoiser, an optimisation of the picture instead of a chain; and RED-diff V."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior, DiffusionPrior
from ..diffusion.streams import NoiseStreams
from ..inference.batches import sample_in_batches
from ..inference.chain import end_time, time_grid
from ..inference.progress import Callback, Progress
from ..inference.results import SampleResult
from ..measurement.observation import Observation
from .config import SamplerConfig

BETAS = (0.9, 0.99)


@dataclass(frozen=True, kw_only=True)
class RedDiffConfig(SamplerConfig):
    """Published: 1000 steps, even in time, lambda 0.25 and Adam at 0.1 with betas 0.9 and 0.99.

    Attributes:
        weight: lambda, of mu - zh (the weighting called linear).
        rate: Adam's, in units of data_std.
    """

    steps: int = 1000
    weight: float = 0.25
    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class RedDiffVConfig(SamplerConfig):
    """``steps`` noise levels, even in log-SNR; ``rate`` is Adam's at the first step, in units of data_std, and falls
    linearly to 0."""

    steps: int = 1000
    rate: float = 0.1

    def _spread(self, prior: DiffusionPrior, start: float) -> list[float]:
        return time_grid(prior.schedule, start, end_time(prior.schedule, prior.data_std), self.steps)


def red_diff(
    prior: DiffusionPrior,
    observation: Observation,
    num_samples: int,
    config: RedDiffConfig | None = None,
    *,
    generator: torch.Generator,
    first: int = 0,
    noise: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleResult:
    """RED-diff (Mardani et al. 2024, algorithm 1), times descending: one Adam step for mu at each, along

        d/dmu |y - A D(mu)|^2 / (2 measurements) * latents + lambda (mu - zh(alpha_t mu + sigma_t eps)).

    The second term is (sigma_t / alpha_t) (eps_h - eps): no gradient through the denoiser. ``noise`` is the first eps.

    Raises:
        InputError: the observation's noise is not Gaussian.
    """
    observation.require_gaussian("RED-diff")
    settings = config or RedDiffConfig()
    times = settings.grid(prior)

    def chain(counted, observation, streams, report):
        mu = _start(prior, observation, streams)
        adam = torch.optim.Adam([mu], lr=settings.rate * prior.data_std, betas=BETAS)
        per_measurement = prior.data_std**2 * mu[0].numel() / int(observation.observed.sum())
        for i, t in enumerate(times):
            alpha, sigma = prior.schedule.level(t)
            eps = streams.first(mu) if i == 0 else streams.normal(mu)
            with torch.no_grad():
                away = mu - counted.denoise(alpha * mu + sigma * eps, t)
            mu.grad = per_measurement * _data_gradient(counted, observation, mu) + settings.weight * away
            adam.step()
            report(Progress("sample", i + 1, len(times)))
        return mu.detach()

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, noise=noise,
        callback=callback,
    )  # fmt: skip


def red_diff_v(
    prior: DiffusionPrior,
    observation: Observation,
    num_samples: int,
    config: RedDiffVConfig | None = None,
    *,
    generator: torch.Generator,
    first: int = 0,
    noise: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleResult:
    """RED-diff V, the control of the VIPaint papers: q = N(mu, diag(s^2)) fitted to the variational bound, its noise
    levels in no order, and a draw of q.

    Each step is one of Adam down -E ln p(y | z_0) + integral of E |eps_h - eps_q|^2 / 2 d ln SNR, eps_q being the
    prediction of q itself. The denoiser is not differentiated: its derivative is taken to be that for independent
    latents of variance data_std^2. All samples of a batch see the levels in the same scattered order. ``noise`` is the
    first eps.

    Raises:
        InputError: the observation's noise is not Gaussian.
    """
    observation.require_gaussian("RED-diff V")
    settings = config or RedDiffVConfig()
    times = settings.grid(prior)
    widths = _widths([prior.schedule.log_snr(t) for t in times])
    order = scattered(len(times))

    def chain(counted, observation, streams, report):
        mu = _start(prior, observation, streams)
        log_std = torch.full_like(mu, math.log(prior.data_std)).requires_grad_()
        rate = settings.rate * prior.data_std
        adam = torch.optim.Adam([{"params": [mu], "lr": rate}, {"params": [log_std], "lr": settings.rate}], betas=BETAS)
        falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, len(times))
        for step, i in enumerate(order):
            alpha, sigma = prior.schedule.level(times[i])
            eps = streams.first(mu) if step == 0 else streams.normal(mu)
            with torch.no_grad():
                spread = log_std.exp() * streams.normal(mu)
                z = alpha * (mu + spread) + sigma * eps
                score = (alpha * counted.denoise(z, times[i]) - z) / sigma**2
                own = (alpha * mu - z) / ((alpha * log_std.exp()) ** 2 + sigma**2)
            gradient = _data_gradient(counted, observation, mu + spread) / observation.noise_std**2
            weight = len(times) * widths[i] * sigma**2 / ((alpha * prior.data_std) ** 2 + sigma**2)
            mu.grad = gradient + weight * alpha * (own - score)
            log_std.grad = mu.grad * spread
            adam.step()
            falling.step()
            report(Progress("sample", step + 1, len(times)))
        return mu.detach() + log_std.detach().exp() * streams.normal(mu)

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, noise=noise,
        callback=callback,
    )  # fmt: skip


def _start(prior: DiffusionPrior, observation: Observation, streams: NoiseStreams) -> Tensor:
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
    """0 to count - 1 in an order of which every stretch is spread over all (multiples of the golden ratio)."""
    return sorted(range(count), key=lambda i: i * (math.sqrt(5) - 1) / 2 % 1)


def _widths(values: list[float]) -> list[float]:
    """The part of an increasing range that is nearest to each of its ``values``."""
    edges = [values[0], *((a + b) / 2 for a, b in pairwise(values)), values[-1]]
    return [b - a for a, b in pairwise(edges)]
