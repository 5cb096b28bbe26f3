"""Gaussian-mixture priors: exact denoisers, and exact posteriors under any linear observation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import InputError
from .observation import Observation
from .schedule import NoiseSchedule


class GaussianMixturePrior:
    """sum_k w_k N(m_k, S_k) over latents, with identity decoder: every law has a closed form here.

    Args:
        weights: ``[K]``, positive; normalised here.
        means: ``[K, *latent_shape]``.
        covariances: ``[K, D, D]`` (D the product of ``latent_shape``), symmetric positive definite.
        schedule: the noise schedule.

    Raises:
        InputError: shapes disagree or a covariance is not positive definite.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor, schedule: NoiseSchedule):
        size = means[0].numel()
        if covariances.shape != (len(means), size, size) or weights.shape != (len(means),):
            raise InputError(
                f"mixture shapes disagree: weights {tuple(weights.shape)}, means {tuple(means.shape)}, "
                f"covariances {tuple(covariances.shape)}"
            )
        self.weights = weights / weights.sum()
        self.means, self.covariances, self.schedule = means, covariances, schedule
        self.latent_shape = tuple(means.shape[1:])
        self.device, self.dtype = means.device, means.dtype
        self.identity = f"gaussian mixture {len(means)} x {self.latent_shape}"
        self._flat_means = means.flatten(1)
        self._eigenvalues, self._eigenvectors = torch.linalg.eigh(covariances)
        if (self._eigenvalues <= 0).any():
            raise InputError("covariances must be positive definite")
        self.data_std = self.moments()[1].diagonal().mean().sqrt().item()

    def _components(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Log of w_k N(z; alpha m_k, alpha^2 S_k + sigma^2), ``[batch, K]``, and E[z_0 | z, k], ``[batch, K, D]``.

        ``alpha`` and ``sigma`` are ``[batch, 1, 1]``.
        """
        centred = z.flatten(1)[:, None] - alpha * self._flat_means
        rotated = torch.einsum("bkd,kde->bke", centred, self._eigenvectors)
        variance = alpha**2 * self._eigenvalues + sigma**2
        log_density = -0.5 * (rotated**2 / variance + (2 * math.pi * variance).log()).sum(-1)
        shift = torch.einsum("bke,kde->bkd", alpha * self._eigenvalues / variance * rotated, self._eigenvectors)
        return self.weights.log() + log_density, self._flat_means + shift

    def denoise(self, z: Tensor, t: Tensor) -> Tensor:
        """E[z_0 | z_t = z], exact."""
        alpha, sigma = self.schedule.alpha(t)[:, None, None], self.schedule.sigma(t)[:, None, None]
        log_weights, means = self._components(z, alpha, sigma)
        return torch.einsum("bk,bkd->bd", log_weights.softmax(1), means).unflatten(1, self.latent_shape)

    def decode(self, z0: Tensor) -> Tensor:
        return z0

    def encode(self, x: Tensor) -> Tensor:
        return x

    def log_prob(self, z: Tensor, t: float | None = None) -> Tensor:
        """ln p(z_t) in nats, ``[batch]``; without ``t``, of the clean law."""
        alpha, sigma = (1.0, 0.0) if t is None else self.schedule.level(t)
        one = z.new_ones(len(z), 1, 1)
        return self._components(z, alpha * one, sigma * one)[0].logsumexp(1)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Exact samples, ``[count, *latent_shape]``."""
        component = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self._flat_means.shape[1], generator=generator, dtype=self.dtype)
        scaled = self._eigenvalues[component].sqrt() * noise
        out = self._flat_means[component] + torch.einsum("be,bde->bd", scaled, self._eigenvectors[component])
        return out.unflatten(1, self.latent_shape)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the whole mixture, ``[D]`` and ``[D, D]``."""
        mean = self.weights @ self._flat_means
        spread = self._flat_means - mean
        covariance = torch.einsum("k,kde->de", self.weights, self.covariances)
        return mean, covariance + torch.einsum("k,kd,ke->de", self.weights, spread, spread)

    def posterior(self, observation: Observation) -> GaussianMixturePrior:
        """p(z_0 | y) for a linear observation: again a mixture, exact (conjugacy, component by component)."""
        size = self._flat_means.shape[1]
        basis = torch.eye(size, dtype=self.dtype).unflatten(1, self.latent_shape)
        observed = observation.observed.flatten()
        matrix = observation.operator(basis).flatten(1).T[observed]
        y = observation.y.flatten()[observed].to(self.dtype)
        cross = self.covariances @ matrix.T
        marginal = matrix @ cross + observation.noise_std**2 * torch.eye(len(matrix), dtype=self.dtype)
        cholesky = torch.linalg.cholesky(marginal)
        residual = y - self._flat_means @ matrix.T
        gain = torch.cholesky_solve(cross.mT, cholesky).mT
        means = self._flat_means + torch.einsum("kdm,km->kd", gain, residual)
        covariances = self.covariances - gain @ cross.mT
        whitened = torch.linalg.solve_triangular(cholesky, residual[..., None], upper=False)[..., 0]
        log_det = cholesky.diagonal(dim1=1, dim2=2).log().sum(1)
        log_evidence = -0.5 * (whitened**2).sum(1) - log_det - 0.5 * len(y) * math.log(2 * math.pi)
        log_weights = self.weights.log() + log_evidence
        posterior = GaussianMixturePrior(
            log_weights.softmax(0), means.unflatten(1, self.latent_shape), (covariances + covariances.mT) / 2, self.schedule
        )
        posterior.log_evidence = log_weights.logsumexp(0).item()
        return posterior

    log_evidence: float = float("nan")
    """ln p(y) in nats, where this mixture came out of :meth:`posterior`."""
