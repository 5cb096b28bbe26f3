"""Corrections of the denoiser's prediction by an observation: DPS, pseudo-inverse and Kalman.

All three share one signature, ``correct(prior, observation, z, t, s, streams, config) -> Guided``. They
differ in what they take for the covariance of z_0 given z_t, C = (sigma_t^2 / alpha_t) d zh / d z_t
(Tweedie's second moment), seen through the decoder D and the operator A, J = A dD:

    E[z_0 | z_t, y] = zh + C J^T S^-1 (y - A D(zh)),    S = J C J^T + sigma_y^2.

Robust noise is a Gaussian of which each measurement has its own variance sigma_y^2 / w, with w found from its residual
(:mod:`vipaint_ops.measurement.likelihood`). Rows of y - A D(zh) and J times sqrt(w) have the variance sigma_y^2 again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import Level, posterior
from ..diffusion.streams import NoiseStreams
from ..measurement.observation import Observation
from .linearised import KrylovSpace, Linearised, clean_variance, column, dot


@dataclass(frozen=True)
class GuidanceConfig:
    """Settings of the corrections; each reads its own.

    Attributes:
        dps_scale: DPS step size zeta (published: 0.3 to 1 at 1000 steps).
        over_relaxation: largest factor on a move that has to catch up with the observation, Kalman only; 1 for none,
            and none either where no spread is drawn to tell by.
        solver_iterations: dimension of the Krylov space in which S is inverted, Kalman only; up to twice as many where
            no spread is drawn and they leave much unexplained.
        spread_iterations: Lanczos iterations for a draw from N(0, C), Kalman only; 0 adds no spread.
        spread_above: noise-to-signal ratio sigma / (alpha data_std) below which no spread is added: what it would
            add there is fine noise that the few solver iterations cannot keep out of the observed part.
        spread_eta: factor on the eta of reverse steps where spread is drawn. From a draw of z_0 every eta leads to the
            same law, and more fresh noise forgets more of what the steps before did wrong.
        most_fresh: the share of a step's noise that ``spread_eta`` may draw afresh at the most: where a long step draws
            all of it, chains of a network can diverge.
    """

    dps_scale: float = 1.0
    over_relaxation: float = 16.0
    solver_iterations: int = 3
    spread_iterations: int = 2
    spread_above: float = 0.5
    spread_eta: float = 1.5
    most_fresh: float = 0.91


@dataclass(frozen=True)
class Guided:
    """A corrected prediction: ``z0`` is a mean or, with spread, a draw from the law of z_0 given z_t and y.

    ``eta`` is a factor on that of the reverse step.
    """

    prediction: Tensor
    z0: Tensor
    eta: float = 1.0


TOLERATED = 1.2
"""By how much the square of what stays unexplained of a residual may exceed that of a draw by chance."""
SOLVED = 0.05
"""The share of a residual's square that a solve without a draw may leave unexplained."""

Correction = Callable[[CountedPrior, Observation, Tensor, float, Level, NoiseStreams, GuidanceConfig], Guided]


def decoder_gain(prior: CountedPrior, z0: Tensor, picture: Tensor, std: float, streams: NoiseStreams) -> Tensor:
    """Variance of the picture for unit variance of the latent around ``z0``, shaped to multiply ``picture``.

    ``picture`` is the decoded ``z0``. The gain is one number a sample, 1 for an identity decoder.
    """
    with torch.no_grad():
        noise = std * streams.normal(z0)
        moved = prior.decode(z0 + noise) - picture
        return column((moved**2).flatten(1).mean(1) / (noise**2).flatten(1).mean(1), picture)


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
    model = Linearised(prior, observation, z, t)
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

    A small space explains only part of a network's residuals, so that a chain falls behind its observation, step by
    step. J e + n is what residuals should look like. What the space leaves unexplained of both has many directions, so
    that chance hardly changes its size (on a Gaussian prior the two squares agree within a tenth): where the residual's
    exceeds the draw's, the mean's move is lengthened, by more the more is unexplained.
    """
    model = Linearised(prior, observation, z, t)
    level = prior.schedule.level(t)
    model.root = root_weights(prior, observation, model.z0, model.picture, level, streams)
    if config.spread_iterations == 0 or level.sigma <= config.spread_above * prior.data_std * level.alpha:
        return Guided(model.z0, model.z0 + _thorough_move(model, config.solver_iterations))
    spread = model.draw(streams.normal(z), config.spread_iterations)
    noise = torch.where(observation.observed, observation.noise_std * streams.normal(model.residual), 0.0)
    predicted = model.forward(spread) + noise
    innovation = model.residual - predicted
    krylov = KrylovSpace(model, innovation, config.solver_iterations)
    left, chance, common = (
        dot(part, part) for part in map(krylov.unexplained, (model.residual, predicted, innovation))
    )
    behind = (left / (TOLERATED * chance).clamp(min=1e-30)) ** 4
    relaxed = 1 + common / dot(innovation, innovation) * (behind.clamp(1, config.over_relaxation) - 1)
    move = spread + column(relaxed, z) * krylov.solve(model.residual) - krylov.solve(predicted)
    fresh = config.most_fresh * s.sigma**2 / max(posterior(s, level).variance, 1e-30)
    return Guided(model.z0, model.z0 + move, max(1.0, min(config.spread_eta, fresh**0.5)))


def _thorough_move(model: Linearised, iterations: int) -> Tensor:
    """C J^T S^-1 (y - A D(zh)) in a Krylov space that is grown to twice the size where it leaves much unexplained."""
    residual = model.residual
    krylov = KrylovSpace(model, residual, iterations)
    move, left = krylov.solve(residual), krylov.unexplained(residual)
    unfinished = dot(left, left) > SOLVED * dot(residual, residual)
    if unfinished.any():
        krylov.grow(iterations)
        move = torch.where(column(unfinished, move), krylov.solve(residual), move)
    return move


CORRECTIONS: dict[str, Correction] = {"dps": dps, "pseudo_inverse": pseudo_inverse, "kalman": kalman}
