"""LanPaint: Langevin dynamics of hidden and known latents together at every noise level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import Level, ReverseStep
from ..diffusion.streams import NoiseStreams
from ..inference.chain import pure_noise, reverse_step
from ..inference.known import Known, pixels_only
from ..inference.progress import reported
from ..settings import number
from .config import SamplerConfig
from .driver import sampler

LAST_RATIO, LAST_TIME, KARRAS_EXPONENT = 0.0292, 1e-5, 7
"""Noise-to-signal ratio of the last step (Stable Diffusion's least), the least time, and the exponent of the grid."""


@dataclass(frozen=True, kw_only=True)
class LanPaintConfig(SamplerConfig):
    """Published: LanPaint-5, 30 steps (109 forward passes with Stable Diffusion), version 2.1 of the code.

    Attributes:
        steps: steps of the ODE, on the grid of Karras et al. (2022, eq. 5).
        inner_steps: Langevin steps at the noisiest level; a level of noise variance 1 - abar has
            ``round(inner_steps * (1 - abar))``.
        step_size: time of a Langevin step, for latents of unit variance.
        guidance: lambda of the bidirectional guidance.
        refreshes: as in :class:`~vipaint_ops.samplers.ding.DInGConfig`.
        friction: root of the friction over the stiffness; the overdamped limit for large values.
    """

    steps: int = number(30, 1)
    inner_steps: int = number(5, 0)
    step_size: float = number(0.2, 0, open=True)
    guidance: float = number(5.0, 0)
    friction: float = number(15.0, 0, 1000, open=True)
    refreshes: int = number(3, 0, 20)

    def _spread(self, prior: CountedPrior, start: float) -> list[float]:
        """Times whose noise-to-signal ratios are even in their root of order 7."""
        schedule, power = prior.schedule, 1 / KARRAS_EXPONENT
        first, least = (schedule.sigma(t) / schedule.alpha(t) for t in (start, LAST_TIME))
        last = max(LAST_RATIO * prior.data_std, least)
        if first <= last:
            return [start]
        roots = torch.linspace(first**power, last**power, self.steps, dtype=torch.float64)
        return [start, *map(schedule.time_at_ratio, (roots[1:] ** KARRAS_EXPONENT).tolist())]


class Kernel(NamedTuple):
    """The exact transition of position and velocity of a unit oscillator: ``matrix`` and the ``factor`` of its noise.

    Both are 2 by 2.
    """

    matrix: Tensor
    factor: Tensor


def oscillator(time: float, friction: float) -> Kernel:
    """The transition after ``time`` of du = f v dt, dv = -f u dt - f^2 v dt + sqrt(2) f dW.

    Its law is N(0, 1) for both; u is the Ornstein-Uhlenbeck process of rate 1 in the limit of large f.
    """
    drift = torch.tensor([[0.0, friction], [-friction, -(friction**2)]], dtype=torch.float64)
    matrix = torch.linalg.matrix_exp(time * drift)
    covariance = torch.eye(2, dtype=torch.float64) - matrix @ matrix.T
    return Kernel(matrix, torch.linalg.cholesky(covariance))


class Langevin:
    """The dynamics at one noise level, for x = sqrt(abar) x_0 + sqrt(1 - abar) eps with x_0 of unit variance.

    Args:
        step: the step of the ODE that follows.
        known: the known latents at this level.
    """

    def __init__(self, prior: CountedPrior, step: ReverseStep, known: Known, config: LanPaintConfig):
        self._prior, self._t, self._config = prior, step.t, config
        self._known, self._keep = known.latents, known.keep
        self._scale, self.noise_share = whitening(step.level, prior.data_std)
        stiffness = 1 / self.noise_share, (1 + config.guidance) / self.noise_share
        self._stiffness = self._by_place(*stiffness)
        self._half, self._whole = (
            self._kernel([part * config.step_size * value for value in stiffness]) for part in (0.5, 1.0)
        )

    def run(self, z: Tensor, streams: NoiseStreams) -> Tensor:
        """``z`` after the inner steps of this level (algorithm 1: the splitting of force and oscillator)."""
        count = round(self._config.inner_steps * self.noise_share)
        if count == 0:
            return z
        x, v = z / self._scale, streams.normal(z)
        force = self._force(x)
        x, v = self._advance(x, v, force, self._whole, streams)
        for _ in range(count - 1):
            x, v = self._advance(x, v, force, self._half, streams)
            before, force = force, self._force(x)
            v = v + self._config.friction * self._stiffness.sqrt() * self._config.step_size * (force - before)
            x, v = self._advance(x, v, force, self._half, streams)
        return self._scale * x

    def _force(self, x: Tensor) -> Tensor:
        """Score plus ``stiffness * x``: the part of the drift that is held constant over a step.

        Hidden latents have the score of the prior. Known latents have the bidirectional guidance (BiG):
        (1 + lambda) times the score of N(sqrt(abar) y, 1 - abar), less lambda times that of the prior.
        """
        std, guidance = self._prior.data_std, self._config.guidance
        predicted = self._prior.denoise(self._scale * x, self._t) / std
        target = (1 - self._keep) * predicted
        target = target + self._keep * ((1 + guidance) * self._known / std - guidance * predicted)
        signal = (1 - self.noise_share) ** 0.5
        return (signal * target + self._keep * guidance * x) / self.noise_share

    def _advance(self, x: Tensor, v: Tensor, force: Tensor, kernel: Kernel, streams: NoiseStreams):
        """Position and velocity after a time under the constant ``force`` (fast Langevin dynamics, exact)."""
        centre, root = force / self._stiffness, self._stiffness.sqrt()
        state, noise = (root * (x - centre), v), (streams.normal(x), streams.normal(x))
        moved = [
            sum(kernel.matrix[i, j] * state[j] + kernel.factor[i, j] * noise[j] for j in range(2)) for i in range(2)
        ]
        return centre + moved[0] / root, moved[1]

    def _kernel(self, times: list[float]) -> Kernel:
        hidden, known = (oscillator(time, self._config.friction) for time in times)
        return Kernel(*(self._by_place(a, b) for a, b in zip(hidden, known, strict=True)))

    def _by_place(self, hidden, known):
        """A quantity that differs between hidden and known latents, as numbers or 2 by 2 matrices of them."""
        shape = *torch.as_tensor(hidden).shape, *[1] * self._keep.ndim
        values = [torch.as_tensor(value, dtype=self._keep.dtype, device=self._keep.device) for value in (hidden, known)]
        hidden, known = (value.view(shape) for value in values)
        return hidden + self._keep * (known - hidden)


def whitening(level: Level, data_std: float) -> tuple[float, float]:
    """The standard deviation of latents at ``level``, and the share 1 - abar of noise in their variance."""
    variance = (level.alpha * data_std) ** 2 + level.sigma**2
    return variance**0.5, level.sigma**2 / variance


@sampler(LanPaintConfig, pixels_only("LanPaint"), gradients=False)
@torch.no_grad()
def lanpaint(prior, observation, config, streams, callback):
    """LanPaint (Zheng et al. 2025): needs no gradient; the law is exact in the limit of many short inner steps.

    At every level the known latents are noised anew, hidden and known latents take the Langevin steps of that level,
    and an Euler step of the ODE (DDIM) leads to the next level, with the known part of the prediction replaced.

    Raises:
        InputError: the observation is not an inpainting one, or not of a picture.
    """
    steps = prior.schedule.reverse_steps(config.grid(prior))
    known = Known(prior, observation, config.refreshes)
    z = pure_noise(prior, steps[0].t, streams)
    for step in reported(steps, callback):
        alpha, sigma = step.level
        z = torch.lerp(z, alpha * known.latents + sigma * streams.normal(z), known.keep)
        z = Langevin(prior, step, known, config).run(z, streams)
        z0 = prior.denoise(z, step.t)
        known.refresh(z0, step.level)
        z = reverse_step(z, known.put_into(z0), step, streams, eta=0.0)
    return z
