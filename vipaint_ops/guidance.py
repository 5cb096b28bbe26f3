"""Corrections of the denoiser's prediction by an observation: DPS, pseudo-inverse and Kalman.

All three share one signature, ``correct(prior, observation, z, t, s, streams, config) -> Guided``. They
differ in what they take for the covariance of z_0 given z_t, C = (sigma_t^2 / alpha_t) d zh / d z_t
(Tweedie's second moment), seen through the decoder D and the operator A, J = A dD:

    E[z_0 | z_t, y] = zh + C J^T S^-1 (y - A D(zh)),    S = J C J^T + sigma_y^2.

Robust noise is a Gaussian of which each measurement has its own variance sigma_y^2 / w, with w found from its residual
(:mod:`vipaint_ops.likelihood`). Rows of y - A D(zh) and J times sqrt(w) have the variance sigma_y^2 again.

Products with C J^T are one vector-Jacobian product through denoiser and decoder; products with J are
a finite difference of the decoder, because hosts and fused kernels seldom differentiate forwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .noise import NoiseStreams
from .observation import Observation
from .prior import CountedPrior
from .schedule import Level, posterior


@dataclass(frozen=True)
class GuidanceConfig:
    """Settings of the corrections; each reads its own.

    Attributes:
        dps_scale: DPS step size zeta (published: 0.3 to 1 at 1000 steps).
        solver_iterations: dimension of the Krylov space in which S is inverted, Kalman only.
        spread_iterations: Lanczos iterations for a draw from N(0, C), Kalman only; 0 adds no spread.
        spread_above: noise-to-signal ratio sigma / (alpha data_std) below which no spread is added: what it would
            add there is fine noise that the few solver iterations cannot keep out of the observed part.
    """

    dps_scale: float = 1.0
    solver_iterations: int = 3
    spread_iterations: int = 2
    spread_above: float = 1.0


@dataclass(frozen=True)
class Guided:
    """A corrected prediction: ``z0`` is a mean or, with spread, a draw from the law of z_0 given z_t and y."""

    prediction: Tensor
    z0: Tensor


Correction = Callable[[CountedPrior, Observation, Tensor, float, Level, NoiseStreams, GuidanceConfig], Guided]


def clean_variance(level: Level, data_std: float) -> float:
    """Variance of z_0 given z_t for independent N(0, data_std^2) latents (PiGDM, eq. 7 and appendix)."""
    return (data_std * level.sigma) ** 2 / ((data_std * level.alpha) ** 2 + level.sigma**2)


def decoder_gain(prior: CountedPrior, z0: Tensor, picture: Tensor, std: float, streams: NoiseStreams) -> Tensor:
    """Variance of the picture for unit variance of the latent around ``z0``, shaped to multiply ``picture``.

    ``picture`` is the decoded ``z0``. The gain is one number a sample, 1 for an identity decoder.
    """
    with torch.no_grad():
        noise = std * streams.normal(z0)
        moved = prior.decode(z0 + noise) - picture
        return _column(_mean(moved**2) / _mean(noise**2), picture)


def root_weights(
    prior: CountedPrior, observation: Observation, z0: Tensor, picture: Tensor, level: Level, streams: NoiseStreams
) -> Tensor | float:
    """sqrt(w) of each measurement; 1 for Gaussian noise, without a look at the prediction.

    The prediction's errors are taken as alike all over the picture, so that a blur does not average them away: a chain
    that doubts its measurements too early never finds back to them.
    """
    if not observation.likelihood.robust:
        return 1.0
    variance = clean_variance(level, prior.data_std)
    gain = decoder_gain(prior, z0, picture, variance**0.5, streams)
    predicted = observation.operator((variance * gain).sqrt().expand_as(picture)) ** 2
    return observation.likelihood.weights(observation.residual(picture), observation.noise_std**2, predicted).sqrt()


def dps(prior, observation, z, t, s, streams, config) -> Guided:
    """DPS (eq. 16 and algorithm 1): a step of ``dps_scale`` down the gradient of the residual's norm.

    The norm is of each sample, never of the batch, so a step does not depend on the batch it is in.
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        z0 = prior.denoise(z, t)
        picture = prior.decode(z0)
        root = root_weights(prior, observation, z0.detach(), picture.detach(), prior.schedule.level(t), streams)
        norm = (root * observation.residual(picture)).flatten(1).norm(dim=1)
        (gradient,) = torch.autograd.grad(norm.sum(), z)
    step = config.dps_scale / posterior(s, prior.schedule.level(t)).on_z0
    return Guided(z0.detach(), z0.detach() - step * gradient)


def pseudo_inverse(prior, observation, z, t, s, streams, config) -> Guided:
    """PiGDM (eq. 6-8): S taken as r^2 A A^T + sigma_y^2 with one variance r^2 for every latent.

    Where n pixels share k latents the decoder's J J^T has k eigenvalues, n / k times its mean diagonal entry, and no
    others: S is taken with those.
    """
    model = _Linearised(prior, observation, z, t)
    level = prior.schedule.level(t)
    variance = clean_variance(level, prior.data_std)
    gain = decoder_gain(prior, model.z0, model.picture, variance**0.5, streams)
    shared = max(1.0, model.picture[0].numel() / model.z0[0].numel())
    seen = observation.operator.squared((shared * variance * gain).expand_as(model.picture))
    model.root = root_weights(prior, observation, model.z0, model.picture, level, streams)
    return Guided(
        model.z0, model.z0 + model.gain_times(model.residual / (model.root**2 * seen + observation.noise_std**2))
    )


def kalman(prior, observation, z, t, s, streams, config) -> Guided:
    """The Kalman update with Tweedie's covariance, and a draw from what it leaves uncertain.

    S is inverted in a small Krylov space. The spread follows Matheron's rule: with e ~ N(0, C) and n ~ N(0, sigma_y^2),
    the same solve applied to y - A D(zh) - J e - n gives zh + e + C J^T S^-1 (...) ~ N(E[z_0 | z_t, y],
    Cov[z_0 | z_t, y]), which is the exact law for a Gaussian prior (TMPD, Boys et al. 2023, gives the mean).
    """
    model = _Linearised(prior, observation, z, t)
    level = prior.schedule.level(t)
    model.root = root_weights(prior, observation, model.z0, model.picture, level, streams)
    residual, z0 = model.residual, model.z0
    if config.spread_iterations > 0 and level.sigma > config.spread_above * prior.data_std * level.alpha:
        spread = model.draw(streams.normal(z0), config.spread_iterations)
        noise = observation.noise_std * streams.normal(residual)
        residual = residual - model.forward(spread) - torch.where(observation.observed, noise, 0.0)
        z0 = z0 + spread
    return Guided(model.z0, z0 + model.solve(residual, config.solver_iterations))


CORRECTIONS: dict[str, Correction] = {"dps": dps, "pseudo_inverse": pseudo_inverse, "kalman": kalman}


class _Linearised:
    """Denoiser and measurement linearised at z_t: products with C, C J^T, J and S, rows weighed by ``root``."""

    step = 0.3
    """Length of the decoder's finite difference, in standard deviations of z_0 given z_t."""
    root: Tensor | float = 1.0
    """sqrt(w) of each measurement."""

    def __init__(self, prior, observation, z, t):
        level = prior.schedule.level(t)
        self._prior, self._observation = prior, observation
        self._scale = level.sigma**2 / level.alpha
        self._std = clean_variance(level, prior.data_std) ** 0.5
        with torch.enable_grad():
            self._z = z.detach().requires_grad_()
            self._prediction = prior.denoise(self._z, t)
            picture = prior.decode(self._prediction)
            self._residual = observation.residual(picture)
        self.z0, self.picture = self._prediction.detach(), picture.detach()

    @property
    def residual(self) -> Tensor:
        """y - A D(zh)."""
        return self.root * self._residual.detach()

    def gain_times(self, u: Tensor) -> Tensor:
        """C J^T u."""
        (g,) = torch.autograd.grad(self._residual, self._z, -self.root * u, retain_graph=True)
        return self._scale * g

    def covariance_times(self, v: Tensor) -> Tensor:
        """C v, with the transposed Jacobian for the Jacobian: C is symmetric for an exact denoiser."""
        (g,) = torch.autograd.grad(self._prediction, self._z, v, retain_graph=True)
        return self._scale * g

    def forward(self, v: Tensor) -> Tensor:
        """J v."""
        length = self.step * self._std / _column(_mean(v**2).sqrt().clamp(min=1e-30), v)
        with torch.no_grad():
            moved = self.root * self._observation.residual(self._prior.decode(self.z0 + length * v))
        return (self.residual - moved) / _column(length.flatten(), moved)

    def solve(self, residual: Tensor, iterations: int) -> Tensor:
        """The most likely move of z_0 that explains ``residual``: C J^T S^-1 ``residual`` in a Krylov space of S.

        On moves delta = C J^T P c, spanned by an orthonormal basis P of the space, the energy delta^T C^-1 delta is
        c^T (P^T J C J^T P) c: no inverse of C is needed, and |residual - J delta|^2 / sigma_y^2 + energy is a small
        least-squares problem. Unlike conjugate gradients it never makes the residual worse, whatever the asymmetry
        of a network's Jacobian; where the energy comes out negative it is taken as zero.
        """
        noise_variance = self._observation.noise_std**2
        basis: list[Tensor] = []
        moves: list[Tensor] = []
        images: list[Tensor] = []
        vector = residual
        for _ in range(iterations):
            for other in basis + basis:
                vector = vector - _column(_dot(vector, other), vector) * other
            basis.append(vector / _column(_dot(vector, vector).sqrt().clamp(min=1e-30), vector))
            moves.append(self.gain_times(basis[-1]))
            images.append(self.forward(moves[-1]))
            vector = images[-1] + noise_variance * basis[-1]
        f = _rows(images).double()
        energy = _rows(basis).double() @ f.mT
        eigenvalues, eigenvectors = torch.linalg.eigh((energy + energy.mT) / 2)
        energy = (eigenvectors * eigenvalues.clamp(min=0)[:, None, :]) @ eigenvectors.mT
        normal = f @ f.mT + noise_variance * energy
        ridge = 1e-10 * normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-30
        normal = normal + torch.diag_embed(ridge[:, None].expand(-1, iterations))
        weights = torch.linalg.solve(normal, f @ residual.flatten(1).double()[..., None])
        return (weights.mT @ _rows(moves).double()).to(residual.dtype).view_as(self.z0)

    def draw(self, noise: Tensor, iterations: int) -> Tensor:
        """C^(1/2) ``noise`` by Lanczos with full orthogonalisation (Chow & Saad 2014, section 3).

        Where the Krylov space ends early, what rounding leaves of the next vector is dropped.
        """
        rounding = 1e3 * torch.finfo(noise.dtype).eps
        norm = _dot(noise, noise).sqrt()
        basis = [noise / _column(norm, noise)]
        products: list[Tensor] = []
        for _ in range(iterations):
            products.append(self.covariance_times(basis[-1]))
            rest = products[-1]
            for vector in basis + basis:
                rest = rest - _column(_dot(rest, vector), vector) * vector
            left, whole = _dot(rest, rest).sqrt(), _dot(products[-1], products[-1]).sqrt()
            inverse = torch.where(left > rounding * whole, 1 / left, 0.0)
            basis.append(_column(inverse, rest) * rest)
        v = _rows(basis[:-1])
        h = v @ _rows(products).mT
        eigenvalues, eigenvectors = torch.linalg.eigh((h + h.mT) / 2)
        first = eigenvectors[:, 0, :] * eigenvalues.clamp(min=0).sqrt()
        combined = torch.einsum("bij,bj->bi", eigenvectors, first)
        return (norm[:, None] * torch.einsum("bid,bi->bd", v, combined)).view_as(noise)


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)


def _rows(vectors: list[Tensor]) -> Tensor:
    """Vectors of a batch as the rows of ``[batch, count, size]``."""
    return torch.stack([v.flatten(1) for v in vectors], 1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _column(value: Tensor, like: Tensor) -> Tensor:
    """``[batch]`` shaped to multiply ``like``."""
    return value.view(-1, *[1] * (like.ndim - 1))
