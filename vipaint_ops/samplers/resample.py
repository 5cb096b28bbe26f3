"""ReSample: hard data consistency every few steps, and a way back to the noise level of the chain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import Level, ReverseStep, reverse_kernel, reverse_mean
from ..diffusion.streams import NoiseStreams
from ..inference.chain import pure_noise
from ..inference.linearised import clean_variance
from ..inference.progress import reported
from ..measurement.observation import Observation
from ..settings import number
from .config import SamplerConfig
from .driver import gaussian_only, sampler
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

    steps: int = number(PUBLISHED_STEPS, 1)
    scale: float = number(0.5, 0)
    every: int = number(10, 1)
    ahead: int = number(5, 1)
    gamma: float = number(40.0, 0)
    pixel_rate: float = number(1e-2, 0)
    pixel_iterations: int = number(2000, 0)
    latent_rate: float = number(5e-3, 0)
    latent_iterations: int = number(500, 0)

    @classmethod
    def inpainting(cls) -> ReSampleConfig:
        """Fewer iterations over latents (a remark in the published code)."""
        return replace(cls(), latent_iterations=200)

    def optimises(self, left: int, total: int) -> bool:
        """Whether the step after which ``left`` of ``total`` are left ends in an optimisation."""
        return 0 < left <= total - total // 3 and left % self.every == 0


@sampler(ReSampleConfig, gaussian_only("ReSample"))
def resample(prior, observation, config, streams, callback):
    """ReSample (Song et al. 2024, algorithm 1).

    Every step is one of DDIM and a short one down the residual's norm. Every ``every`` steps the prediction is moved
    until its mean squared residual is the variance of the noise, and the chain goes on from a draw of

        p(z_s | z_0*, z_s', y) ~ N(z_s; alpha_s z_0*, sigma_s^2) N(z_s; z_s', v),    v = gamma Var[z_s | z_t, z_0],

    with z_0* what the optimisation found and z_s' where the chain was.

    Raises:
        InputError: the observation's noise is not Gaussian.
    """

    def loss(z0: Tensor) -> Tensor:
        return residual_norm(observation, prior.decode(z0))

    steps = prior.schedule.reverse_steps(config.grid(prior))
    length = config.scale * relative_length(prior, len(steps), PUBLISHED_SIZE, PUBLISHED_STEPS)
    z = pure_noise(prior, steps[0].t, streams)
    for i, step in enumerate(reported(steps, callback)):
        left = len(steps) - 1 - i
        signal = 1 - clean_variance(step.level, prior.data_std) / prior.data_std**2
        z = gradient_step(prior, z, step, loss, length * signal, streams)
        if config.optimises(left, len(steps)):
            z0 = prediction_ahead(prior, z, steps[i + 1 : i + 1 + config.ahead])
            over = pixels_optimised if left >= len(steps) // 3 else latents_optimised
            z0 = over(prior, observation, z0, config)
            z = stochastic_resample(z0, z, step.next, step.level, config.gamma, streams)
    return latents_optimised(prior, observation, z, config)


@torch.no_grad()
def prediction_ahead(prior: CountedPrior, z: Tensor, steps: list[ReverseStep]) -> Tensor:
    """E[z_0 | z] at the last of ``steps``, reached from ``z`` at the first by DDIM."""
    for step in steps:
        z0 = prior.denoise(z, step.t)
        z, _ = reverse_mean(z, z0, step.next, step.level, eta=0.0)
    return z0


def pixels_optimised(prior: CountedPrior, observation: Observation, z0: Tensor, config: ReSampleConfig) -> Tensor:
    """The latent of the decoded ``z0`` after optimisation over pixels."""
    with torch.no_grad():
        x = prior.decode(z0)
    x = consistent(observation, lambda x: x, x, config.pixel_rate, config.pixel_iterations)
    with torch.no_grad():
        return prior.encode(x)


def latents_optimised(prior: CountedPrior, observation: Observation, z0: Tensor, config: ReSampleConfig) -> Tensor:
    """``z0`` after optimisation over latents, through the decoder."""
    return consistent(observation, prior.decode, z0, config.latent_rate * prior.data_std, config.latent_iterations)


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
    """A draw of z at ``s`` between the noised ``z0`` and ``z``, the result of the step from ``t``."""
    v = gamma * reverse_kernel(s, t).variance
    mean = (v * s.alpha * z0 + s.sigma**2 * z) / (v + s.sigma**2)
    return mean + math.sqrt(v * s.sigma**2 / (v + s.sigma**2)) * streams.normal(z)
