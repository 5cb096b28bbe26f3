"""LATINO: decode, a proximal step towards the measurements, encode, and noise again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.streams import NoiseStreams
from ..inference.chain import even_times, pure_noise, reverse_step
from ..inference.linearised import clean_variance, conjugate_gradients
from ..inference.progress import reported
from ..measurement.observation import Observation
from ..settings import number
from .config import SamplerConfig
from .driver import gaussian_only, sampler

ITERATIONS = 100
"""Of the conjugate gradients, at most."""


@dataclass(frozen=True, kw_only=True)
class LATINOConfig(SamplerConfig):
    """The method is made for consistency models, which predict a sample of p(z_0 | z_t) in one pass. An ordinary model
    predicts the mean, so here several steps of its ODE replace that pass.

    Attributes:
        steps: rounds of noising, sampling and proximal step, even in time.
        ode_steps: forward passes of a round.
        delta: step length of the proximal step, relative to the noise variance 1 - abar of a level.
    """

    steps: int = number(16, 1)
    ode_steps: int = number(4, 1)
    delta: float = number(1.0, 0, open=True)

    @classmethod
    def consistency_model(cls) -> LATINOConfig:
        """Published, for consistency models: 8 steps of one pass (``main_LATINO.py`` of LATINO-PRO/LATINO-PRO)."""
        return cls(steps=8, ode_steps=1)


@sampler(LATINOConfig, gaussian_only("LATINO"), gradients=False)
@torch.no_grad()
def latino(prior, observation, config, streams, callback):
    """LATINO (Spagnoletti et al. 2025, algorithm 1): needs no gradient, for any linear operator.

    A latent is noised, carried to a clean one by the ODE of the prior, and decoded. The proximal operator of
    delta_k \\|y - A x\\|^2 / (2 sigma_y^2) follows, and the picture is encoded again.
    """
    steps = prior.schedule.reverse_steps(config.grid(prior))
    z = pure_noise(prior, steps[0].t, streams)
    for step in reported(steps, callback):
        picture = prior.decode(ode_solution(prior, z, step.t, config.ode_steps, streams))
        noise_share = clean_variance(step.level, prior.data_std) / prior.data_std**2
        weight = config.delta * noise_share / observation.noise_std**2
        z = step.next.alpha * prior.encode(proximal(observation, picture, weight))
        z = z + step.next.sigma * streams.normal(z)
    return z


def ode_solution(prior: CountedPrior, z: Tensor, t: float, steps: int, streams: NoiseStreams) -> Tensor:
    """The clean latent of the probability flow ODE from ``z`` at time ``t``, in DDIM steps even in time."""
    for step in prior.schedule.reverse_steps(even_times(t, steps)):
        z = reverse_step(z, prior.denoise(z, step.t), step, streams, eta=0.0)
    return z


def proximal(observation: Observation, x: Tensor, weight: float) -> Tensor:
    """The minimiser u of \\|u - x\\|^2 + ``weight`` \\|y - A u\\|^2, for each row of ``x``.

    u = x + A^T (A A^T + 1 / weight)^-1 (y - A x), by conjugate gradients, each row for itself. A row stops when its
    residual is below 1e-3 of that at the start, or after 100 steps. Masks need one.
    """
    operator = observation.operator

    def product(u: Tensor) -> Tensor:
        return operator(operator.adjoint(u)) + u / weight

    return x + operator.adjoint(conjugate_gradients(product, observation.residual(x), ITERATIONS))
