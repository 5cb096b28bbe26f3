r"""What an observation says of a noisy latent, ln p(y | z_t), and the step down that it foresees: for particles.

Twisted sequential Monte Carlo (TDS, Wu et al. 2023, section 3) weighs a particle that went from z_t to z_s by

    w = p(z_s | z_t) p(y | z_s) / (p(y | z_t) q(z_s | z_t, y)).

Where the reverse step is Gaussian with Tweedie's second moment, z_s = a z_t + b z_0 + sqrt(v) noise with
z_0 ~ N(zh, C), and the proposal q is that same Gaussian given y, Bayes' rule leaves

    w = p(y | z_s) / p(y | z_t, z_s):

the evidence as the network sees it from z_s, over what the linear model at z_t foresaw for this z_s. On a Gaussian
prior that would be 1 for every particle and step size: weights say only what the linear model missed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import CLEAN, Level, posterior, reverse_mean
from ..diffusion.streams import NoiseStreams
from ..measurement.observation import Observation
from .corrections import GuidanceConfig, kalman
from .linearised import Linearised, clean_variance

FEW = 16
"""Measurements that are taken one by one; each costs one backward pass a step."""


class Twist(Protocol):
    """One linearisation of all particles at z_t."""

    log_likelihood: Tensor
    """ln p(y | z_t), ``[batch]``, in nats, up to a constant that all particles share."""

    def step(self, rows: Tensor, s: Level) -> tuple[Tensor, Tensor]:
        """Move the particles ``rows`` down to ``s``: z_s, and ln p(y | z_t, z_s) as foreseen, ``[batch]``."""
        ...


class ExactTwist:
    """The twist of :data:`FEW` measurements at most, with all of S = J C J^T + sigma_y^2.

    With G = J C (one vector-Jacobian product a measurement) and M = J C J^T, what is measured of z_0, u = J (z_0 - zh),
    is N(0, M) before y and N(M S^-1 r, M - M S^-1 M) after it, and z_0 - zh = G^T M^-1 u carries it into the latent.
    The directions G alone carry a second moment (a Nystrom part of C, all of what y sees, and exact where C is
    isotropic); the others take the step with noise sqrt(v), and the last one is a full draw.
    """

    def __init__(
        self, prior: CountedPrior, observation: Observation, z: Tensor, t: float, config: GuidanceConfig,
        streams: NoiseStreams,
    ):  # fmt: skip
        self._prior, self._observation, self._z, self._time = prior, observation, z, t
        self._config, self._streams, self._level = config, streams, prior.schedule.level(t)
        model = Linearised(prior, observation, z, t)
        places = observation.observed.flatten().nonzero()[:, 0]
        gains, images = [], []
        for place in places:
            unit = torch.zeros_like(model.residual)
            unit.flatten(1)[:, place] = 1
            gains.append(model.gain_times(unit))
            images.append(model.forward(gains[-1]).flatten(1)[:, places])
        self._z0, self._residual = model.z0, model.residual.flatten(1)[:, places].double()
        self._gain = torch.stack([g.flatten(1) for g in gains], 1).double()
        self._m = _positive(torch.stack(images, 1).double(), 100 * torch.finfo(z.dtype).eps)
        self._noise = observation.noise_std**2 * torch.eye(len(places), dtype=torch.float64, device=z.device)
        self.log_likelihood = _log_normal(self._residual, self._m + self._noise)

    def step(self, rows: Tensor, s: Level) -> tuple[Tensor, Tensor]:
        """See :class:`Twist`; the step to the clean latent is a draw by :func:`~.guidance.kalman`."""
        if s == CLEAN:
            settings = replace(self._config, over_relaxation=1.0, solver_iterations=len(self._noise), spread_above=0.0)
            z = self._z[rows]
            drawn = kalman(self._prior, self._observation, z, self._time, s, self._streams, settings).z0
            return drawn, self.log_likelihood[rows]
        residual, gain, m = self._residual[rows], self._gain[rows], self._m[rows]
        b, v = posterior(s, self._level).on_z0, posterior(s, self._level).variance
        solved = torch.linalg.solve(m + self._noise, torch.cat([m, residual[..., None]], -1))
        after = _positive(m - m @ solved[..., :-1])
        measured = (m @ solved[..., -1:])[..., 0]
        noise = self._streams.normal(residual)
        u = measured + (torch.linalg.cholesky(after) @ noise[..., None])[..., 0]
        carried = torch.linalg.solve(m, gain)
        moved = b * (u[:, None] @ carried)[:, 0] + math.sqrt(v) * self._streams.normal(self._z).flatten(1)
        mean, _ = reverse_mean(self._z[rows], self._z0[rows], s, self._level)
        # Lambda = (M^-1 + b^2 / v W W^T)^-1 without an inverse of M, which may be all but singular
        weighed = torch.linalg.solve(m + b**2 / v * gain @ gain.mT, torch.cat([m, gain @ moved[..., None]], -1))
        known, seen = _positive(m @ weighed[..., :-1]), b / v * (m @ weighed[..., -1:])[..., 0]
        foreseen = _log_normal(residual - seen, known + self._noise)
        return mean + moved.to(mean.dtype).view_as(mean), foreseen


class ScalarTwist:
    """The twist of many measurements: residuals against one variance, the same for all particles.

    It assumes independent latents (as the bound's likelihood does) and weighs only which particles explain y better
    than their like; ``step`` is a guided one, foreseen to explain y as well as it does now.
    """

    def __init__(
        self, prior: CountedPrior, observation: Observation, z: Tensor, t: float, config: GuidanceConfig,
        streams: NoiseStreams,
    ):  # fmt: skip
        self._z, self._level, self._streams = z, prior.schedule.level(t), streams
        guided = kalman(prior, observation, z, t, CLEAN, streams, config)
        self._z0 = guided.z0
        with torch.no_grad():
            picture = prior.decode(guided.prediction)
        variance = clean_variance(self._level, prior.data_std)
        seen = observation.operator.squared(torch.full_like(picture[:1], variance)) + observation.noise_std**2
        squares = torch.where(observation.observed, observation.residual(picture) ** 2 / seen, 0.0)
        self.log_likelihood = -0.5 * squares.flatten(1).sum(1).double()

    def step(self, rows: Tensor, s: Level) -> tuple[Tensor, Tensor]:
        """See :class:`Twist`."""
        mean, v = reverse_mean(self._z[rows], self._z0[rows], s, self._level)
        return mean + math.sqrt(v) * self._streams.normal(mean), self.log_likelihood[rows]


def _positive(matrices: Tensor, rounding: float = 1e-9) -> Tensor:
    """Symmetric matrices with their eigenvalues kept above ``rounding``, a share of the largest."""
    values, vectors = torch.linalg.eigh((matrices + matrices.mT) / 2)
    least = max(rounding, 1e-9) * values.amax(-1, keepdim=True).clamp(min=1e-30)
    return (vectors * values.maximum(least)[..., None, :]) @ vectors.mT


def _log_normal(residual: Tensor, covariance: Tensor) -> Tensor:
    return MultivariateNormal(torch.zeros_like(residual), covariance).log_prob(residual)
