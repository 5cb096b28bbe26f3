"""ReSample: hard data consistency, every few steps, and a way back to the noise level it was found at."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior, DiffusionPrior
from ..diffusion.schedule import CLEAN, Level, posterior, reverse_mean
from ..diffusion.streams import NoiseStreams
from ..errors import InputError
from ..inference.batches import sample_in_batches
from ..inference.chain import pure_noise
from ..inference.linearised import clean_variance
from ..inference.progress import Callback, Progress
from ..inference.results import SampleResult
from ..measurement.observation import Observation
from .config import SamplerConfig
from .gradient_step import gradient_step, relative_length, residual_norm

PUBLISHED_SIZE, PUBLISHED_STEPS = 3 * 64 * 64, 500


@dataclass(frozen=True, kw_only=True)
class ReSampleConfig(SamplerConfig):
    """Published for the latent diffusion model of FFHQ at 256 pixels, in 500 steps.

    Attributes:
        scale: step length down the residual's norm before the factor alpha_t^2; for other sizes and numbers of steps
            see :func:`~vipaint_ops.samplers.gradient_step.relative_length`.
        every: steps from one optimisation to the next; there is none in the first third of a chain, and in the second
            third it is one over pixels, in the last over latents.
        ahead: DDIM steps that the prediction to be optimised is ahead of the chain.
        gamma: variance given to what the optimisation found, in posterior variances of the step; the rest of the weight
            is with where the chain was.
        pixel_rate, pixel_iterations: Adam's, over pixels in [-1, 1].
        latent_rate, latent_iterations: Adam's, over latents; the rate is in units of data_std.
    """

    steps: int = PUBLISHED_STEPS
    scale: float = 0.5
    every: int = 10
    ahead: int = 5
    gamma: float = 40.0
    pixel_rate: float = 1e-2
    pixel_iterations: int = 2000
    latent_rate: float = 5e-3
    latent_iterations: int = 500

    def __post_init__(self):
        super().__post_init__()
        for name in ("every", "ahead"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @classmethod
    def inpainting(cls) -> ReSampleConfig:
        """Fewer iterations over latents (a remark in the published code)."""
        return replace(cls(), latent_iterations=200)

    def optimises(self, left: int, total: int) -> bool:
        """Whether the step after which ``left`` of ``total`` are left ends in an optimisation."""
        return 0 < left <= total - total // 3 and left % self.every == 0


def resample(
    prior: DiffusionPrior,
    observation: Observation,
    num_samples: int,
    config: ReSampleConfig | None = None,
    *,
    generator: torch.Generator,
    first: int = 0,
    noise: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleResult:
    """ReSample (Song et al. 2024, algorithm 1).

    Every step is one of DDIM and a short one down the residual's norm. Every ``every`` steps the prediction is moved
    until its mean squared residual is the variance of the noise, and the chain goes on from a draw of

        p(z_s | z_0*, z_s', y) ~ N(z_s; alpha_s z_0*, sigma_s^2) N(z_s; z_s', v),    v = gamma Var[z_s | z_t, z_0],

    with z_0* what the optimisation found and z_s' where the chain was.

    Raises:
        InputError: the observation's noise is not Gaussian.
    """
    observation.require_gaussian("ReSample")
    settings = config or ReSampleConfig()
    times = settings.grid(prior)
    levels = [prior.schedule.level(t) for t in times] + [CLEAN]
    length = settings.scale * relative_length(prior, len(times), PUBLISHED_SIZE, PUBLISHED_STEPS)

    def chain(counted, observation, streams, report):
        def loss(z0: Tensor) -> Tensor:
            return residual_norm(observation, counted.decode(z0))

        def optimised(z0: Tensor, over_pixels: bool) -> Tensor:
            if not over_pixels:
                rate = settings.latent_rate * prior.data_std
                return consistent(observation, counted.decode, z0, rate, settings.latent_iterations)
            with torch.no_grad():
                picture = counted.decode(z0)
            picture = consistent(observation, lambda x: x, picture, settings.pixel_rate, settings.pixel_iterations)
            with torch.no_grad():
                return prior.encode(picture)

        z = pure_noise(counted, times[0], streams)
        for i, t in enumerate(times):
            left = len(times) - 1 - i
            signal = 1 - clean_variance(levels[i], prior.data_std) / prior.data_std**2
            z = gradient_step(counted, z, t, levels[i + 1], loss, length * signal, streams)
            if settings.optimises(left, len(times)):
                z0 = _prediction_ahead(counted, z, times[i + 1 : i + 1 + settings.ahead], levels[i + 1 :])
                z0 = optimised(z0, over_pixels=left >= len(times) // 3)
                z = stochastic_resample(z0, z, levels[i + 1], levels[i], settings.gamma, streams)
            report(Progress("sample", i + 1, len(times)))
        return optimised(z, over_pixels=False)

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, noise=noise,
        callback=callback,
    )  # fmt: skip


@torch.no_grad()
def _prediction_ahead(prior: CountedPrior, z: Tensor, times: list[float], levels: list[Level]) -> Tensor:
    """E[z_0 | z] at the last of ``times``, to which DDIM steps lead from ``z`` at the first."""
    for i, t in enumerate(times):
        z0 = prior.denoise(z, t)
        z, _ = reverse_mean(z, z0, levels[i + 1], levels[i], eta=0.0)
    return z0


def consistent(
    observation: Observation, picture_of: Callable[[Tensor], Tensor], start: Tensor, rate: float, iterations: int
) -> Tensor:
    """``start`` moved by Adam until its mean squared residual is that of the noise, each row for itself."""
    measured = int(observation.observed.sum())
    x = start.detach().clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=rate)
    running = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for _ in range(iterations):
        with torch.enable_grad():
            error = observation.residual(picture_of(x[running])).square().flatten(1).sum(1) / measured
            (x.grad,) = torch.autograd.grad(error.sum(), x)
        running = running.masked_scatter(running, error > observation.noise_std**2)
        if not running.any():
            break
        before = x.detach().clone()
        adam.step()
        with torch.no_grad():
            x[~running] = before[~running]
    return x.detach()


def stochastic_resample(z0: Tensor, z: Tensor, s: Level, t: Level, gamma: float, streams: NoiseStreams) -> Tensor:
    """A draw of z at ``s`` between what ``z0`` makes of it and ``z``, which the step from ``t`` led to."""
    v = gamma * posterior(s, t).variance
    mean = (v * s.alpha * z0 + s.sigma**2 * z) / (v + s.sigma**2)
    return mean + math.sqrt(v * s.sigma**2 / (v + s.sigma**2)) * streams.normal(z)
