"""Gaussian-mixture priors: exact denoisers, and exact posteriors under any linear observation.

The algebra runs in float64 on the CPU, so that it is the same for every device; latents stay where they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..diffusion.schedule import NoiseSchedule
from ..errors import InputError
from ..measurement.observation import Observation


class GaussianMixturePrior:
    """sum_k w_k N(m_k, S_k) over latents, with identity decoder: every law has a closed form.

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
        self._flat_means = means.cpu().flatten(1)
        # G bases: one for every component, or one for all where they share a covariance.
        shared = bool((covariances == covariances[:1]).all())
        bases = (covariances[:1] if shared else covariances).cpu().double()
        self._eigenvalues, self._eigenvectors = torch.linalg.eigh(bases)
        by_basis = self._flat_means.double().view(len(bases), -1, size)
        self._rotated_means = by_basis @ self._eigenvectors
        if (self._eigenvalues <= 0).any():
            raise InputError("covariances must be positive definite")
        self.data_std = self.moments()[1].diagonal().mean().sqrt().item()

    def _components(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log of w_k N(z; alpha m_k, alpha^2 S_k + sigma^2), ``[batch, G, K / G]``, z in each basis, and the variances.

        ``alpha`` and ``sigma`` are ``[batch, 1, 1]``. The square is multiplied out, which spares ``[batch, K, D]``
        numbers where components share a covariance, and costs digits: hence in float64.
        """
        z = torch.einsum("bd,gde->bge", z.cpu().flatten(1).double(), self._eigenvectors)
        variance = alpha**2 * self._eigenvalues + sigma**2
        apart = (z**2 / variance + (2 * math.pi * variance).log()).sum(-1, keepdim=True)
        cross = torch.einsum("bge,gme->bgm", z / variance, self._rotated_means)
        own = torch.einsum("bge,gme->bgm", 1 / variance, self._rotated_means**2)
        log_weights = self.weights.cpu().double().log().view(len(self._eigenvectors), -1)
        return log_weights - 0.5 * apart + alpha * cross - 0.5 * alpha**2 * own, z, variance

    def denoise(self, z: Tensor, t: Tensor) -> Tensor:
        """E[z_0 | z_t = z], exact."""
        alpha, sigma = (f(t).cpu().double()[:, None, None] for f in (self.schedule.alpha, self.schedule.sigma))
        log_weights, rotated, variance = self._components(z, alpha, sigma)
        weights = log_weights.flatten(1).softmax(1).view_as(log_weights)
        mean = torch.einsum("bgm,gme->bge", weights, self._rotated_means)
        gain = alpha * self._eigenvalues / variance
        predicted = mean + gain * (weights.sum(-1, keepdim=True) * rotated - alpha * mean)
        flat = torch.einsum("bge,gde->bd", predicted, self._eigenvectors)
        return flat.to(z.dtype).to(z.device).unflatten(1, self.latent_shape)

    def decode(self, z0: Tensor) -> Tensor:
        return z0

    def encode(self, x: Tensor) -> Tensor:
        return x

    def log_prob(self, z: Tensor, t: float | None = None) -> Tensor:
        """ln p(z_t) in nats, ``[batch]``; without ``t``, of the clean law."""
        alpha, sigma = (1.0, 0.0) if t is None else self.schedule.level(t)
        one = torch.ones(len(z), 1, 1, dtype=torch.float64)
        return self._components(z, alpha * one, sigma * one)[0].flatten(1).logsumexp(1).to(z.dtype).to(z.device)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Exact samples, ``[count, *latent_shape]``; ``generator`` is on the CPU."""
        component = torch.multinomial(self.weights.cpu(), count, replacement=True, generator=generator)
        noise = torch.randn(count, self._flat_means.shape[1], generator=generator, dtype=self.dtype)
        basis = self._eigenvectors * self._eigenvalues.sqrt()[:, None]
        square_root = basis.expand(len(self.means), -1, -1).to(self.dtype)
        out = self._flat_means[component] + torch.einsum("be,bde->bd", noise, square_root[component])
        return out.to(self.device).unflatten(1, self.latent_shape)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the whole mixture, ``[D]`` and ``[D, D]``."""
        means = self.means.flatten(1)
        mean = self.weights @ means
        spread = means - mean
        covariance = torch.einsum("k,kde->de", self.weights, self.covariances)
        return mean, covariance + torch.einsum("k,kd,ke->de", self.weights, spread, spread)

    def posterior(self, observation: Observation) -> GaussianMixturePrior:
        """p(z_0 | y) for a linear observation: again a mixture, exact (conjugacy, component by component)."""
        cpu = torch.device("cpu")
        observation = observation.to(cpu, self.dtype)
        weights, all_covariances = self.weights.cpu(), self.covariances.cpu()
        size = self._flat_means.shape[1]
        basis = torch.eye(size, dtype=self.dtype).unflatten(1, self.latent_shape)
        observed = observation.observed.flatten()
        matrix = observation.operator(basis).flatten(1).T[observed]
        y = observation.y.flatten()[observed]
        cross = all_covariances @ matrix.T
        marginal = matrix @ cross + observation.noise_std**2 * torch.eye(len(matrix), dtype=self.dtype)
        cholesky = torch.linalg.cholesky(marginal)
        residual = y - self._flat_means @ matrix.T
        gain = torch.cholesky_solve(cross.mT, cholesky).mT
        means = self._flat_means + torch.einsum("kdm,km->kd", gain, residual)
        covariances = all_covariances - gain @ cross.mT
        whitened = torch.linalg.solve_triangular(cholesky, residual[..., None], upper=False)[..., 0]
        log_det = cholesky.diagonal(dim1=1, dim2=2).log().sum(1)
        log_evidence = -0.5 * (whitened**2).sum(1) - log_det - 0.5 * len(y) * math.log(2 * math.pi)
        log_weights = weights.log() + log_evidence
        posterior = GaussianMixturePrior(
            log_weights.softmax(0).to(self.device),
            means.unflatten(1, self.latent_shape).to(self.device),
            ((covariances + covariances.mT) / 2).to(self.device),
            self.schedule,
        )
        posterior.log_evidence = log_weights.logsumexp(0).item()
        return posterior

    log_evidence: float = float("nan")
    """ln p(y) in nats, where this mixture came out of :meth:`posterior`."""
