r"""ln p(y | z_t) of a noisy latent, and the step down that it predicts: for particles.

Twisted sequential Monte Carlo (TDS, Wu et al. 2023, section 3) weighs a particle that went from z_t to z_s by

    w = p(z_s | z_t) p(y | z_s) / (p(y | z_t) q(z_s | z_t, y)).

Where the reverse step is Gaussian with Tweedie's second moment, z_s = a z_t + b z_0 + sqrt(v) noise with
z_0 ~ N(zh, C), and the proposal q is that same Gaussian given y, Bayes' rule leaves

    w = p(y | z_s) / p(y | z_t, z_s):

the evidence by the network at z_s, over the evidence that the linear model at z_t predicted for this z_s. On a Gaussian
prior it is 1 for every particle and step size: weights hold the error of the linear model only. They are computed in
float64 on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import CLEAN, ReverseStep, reverse_kernel, reverse_mean
from ..diffusion.streams import NoiseStreams
from ..measurement.observation import Observation
from .corrections import CatchUp, Kalman
from .linearised import Linearised, back, clean_variance, exact

FEW = 16
"""The most measurements that are taken one by one; each costs one backward pass a step."""
DERIVATIVE = 1e-3
"""Length of finite differences in float64, in standard deviations. Weights need C itself: a slope over several
standard deviations, which :attr:`Linearised.step` takes in many dimensions, gives modes the wrong shares."""


class Twist(Protocol):
    """One linearisation of all particles at z_t, the start of a reverse step."""

    log_likelihood: Tensor
    """ln p(y | z_t), ``[batch]``, in nats, up to a constant that all particles share."""

    def move(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Move the particles ``rows`` down the step: z_s, and the predicted ln p(y | z_t, z_s), ``[batch]``."""
        ...


class ExactTwist:
    """The twist of :data:`FEW` measurements at most, with all of S = J C J^T + sigma_y^2.

    With G = J C (one vector-Jacobian product a measurement) and M = J C J^T, the measured part of z_0,
    u = J (z_0 - zh), is N(0, M) before y and N(M S^-1 r, M - M S^-1 M) after it. z_0 - zh = G^T M^-1 u carries it into
    the latent.
    The directions G alone carry a second moment (a Nystrom part of C: all that y depends on, and exact where C is
    isotropic). The others take the step with noise sqrt(v), and the last step is a full draw.
    """

    def __init__(
        self,
        prior: CountedPrior,
        observation: Observation,
        z: Tensor,
        step: ReverseStep,
        kalman: Kalman,
        streams: NoiseStreams,
    ):
        self._prior, self._observation, self._z, self._step = prior, observation, z, step
        self._kalman, self._streams = kalman, streams
        model = Linearised(prior, observation, z, step.t)
        if z.dtype == torch.float64:
            model.step = DERIVATIVE
        places = observation.observed.flatten().nonzero()[:, 0]
        gains, images = [], []
        for place in places:
            unit = torch.zeros_like(model.residual)
            unit.flatten(1)[:, place] = 1
            gains.append(model.gain_times(unit))
            images.append(model.forward(gains[-1]).flatten(1)[:, places])
        self._z0, self._residual = model.z0, exact(model.residual.flatten(1)[:, places])
        self._gain = exact(torch.stack([g.flatten(1) for g in gains], 1))
        self._m = _positive(exact(torch.stack(images, 1)), 100 * torch.finfo(z.dtype).eps)
        self._noise = observation.noise_std**2 * torch.eye(len(places), dtype=torch.float64)
        self.log_likelihood = _log_normal(self._residual, self._m + self._noise)

    def move(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Twist`; the step to the clean latent is a draw by :class:`~.corrections.Kalman`."""
        z, step = self._z[rows], self._step
        if step.next == CLEAN:
            whole = replace(
                self._kalman,
                catch_up=CatchUp(most=1),
                solver_iterations=len(self._noise),
                spread_above=0.0,
            )
            return whole(self._prior, self._observation, z, step, self._streams).z0, self.log_likelihood[rows]
        residual, gain, m = self._residual[rows], self._gain[rows], self._m[rows]
        kernel = reverse_kernel(step.next, step.level)
        b, v = kernel.on_z0, kernel.variance
        solved = torch.linalg.solve(m + self._noise, torch.cat([m, residual[..., None]], -1))
        after = _positive(m - m @ solved[..., :-1])
        measured = (m @ solved[..., -1:])[..., 0]
        noise = self._streams.normal(residual)
        u = measured + (torch.linalg.cholesky(after) @ noise[..., None])[..., 0]
        carried = torch.linalg.solve(m, gain)
        others = exact(math.sqrt(v) * self._streams.normal(self._z).flatten(1))
        moved = b * (u[:, None] @ carried)[:, 0] + others
        mean, _ = reverse_mean(z, self._z0[rows], step.next, step.level)
        # Lambda = (M^-1 + b^2 / v W W^T)^-1 without an inverse of M, which may be nearly singular
        weighed = torch.linalg.solve(m + b**2 / v * gain @ gain.mT, torch.cat([m, gain @ moved[..., None]], -1))
        known, seen = _positive(m @ weighed[..., :-1]), b / v * (m @ weighed[..., -1:])[..., 0]
        predicted = _log_normal(residual - seen, known + self._noise)
        return mean + back(moved, mean), predicted


class ScalarTwist:
    """The twist of many measurements: residuals against one variance, the same for all particles.

    It assumes independent latents (as the bound's likelihood does), and compares particles with each other only. The
    move is a guided step; the predicted likelihood is the one before it.
    """

    def __init__(
        self,
        prior: CountedPrior,
        observation: Observation,
        z: Tensor,
        step: ReverseStep,
        kalman: Kalman,
        streams: NoiseStreams,
    ):
        self._z, self._step, self._streams = z, step, streams
        corrected = kalman(prior, observation, z, step, streams)
        self._z0 = corrected.z0
        with torch.no_grad():
            picture = prior.decode(corrected.prediction)
        variance = clean_variance(step.level, prior.data_std)
        seen = observation.operator.squared(torch.full_like(picture[:1], variance)) + observation.noise_std**2
        squares = torch.where(observation.observed, observation.residual(picture) ** 2 / seen, 0.0)
        self.log_likelihood = exact(-0.5 * squares.flatten(1).sum(1))

    def move(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Twist`."""
        mean, v = reverse_mean(self._z[rows], self._z0[rows], self._step.next, self._step.level)
        return mean + math.sqrt(v) * self._streams.normal(mean), self.log_likelihood[rows]


def _positive(matrices: Tensor, rounding: float = 1e-9) -> Tensor:
    """Symmetric matrices with their eigenvalues kept above ``rounding``, a share of the largest."""
    values, vectors = torch.linalg.eigh((matrices + matrices.mT) / 2)
    least = max(rounding, 1e-9) * values.amax(-1, keepdim=True).clamp(min=1e-30)
    return (vectors * values.maximum(least)[..., None, :]) @ vectors.mT


def _log_normal(residual: Tensor, covariance: Tensor) -> Tensor:
    return MultivariateNormal(torch.zeros_like(residual), covariance).log_prob(residual)
