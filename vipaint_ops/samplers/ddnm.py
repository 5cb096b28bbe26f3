"""DDNM: replace the observed part of every prediction, keep the null space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import Level
from ..diffusion.streams import NoiseStreams
from ..inference.chain import pure_noise
from ..inference.known import known_latents
from ..measurement.observation import Observation
from ..settings import number
from .driver import gaussian_only, sampler
from .travel import TravelConfig, noised, reported_steps


@dataclass(frozen=True, kw_only=True)
class DDNMConfig(TravelConfig):
    """Published: 100 steps, even in time, eta 0.85, no time travel (``configs`` and ``evaluation.sh`` of the code).

    Attributes:
        eta: share of fresh noise, 0 to 1: DDIM's, of the whole noise and not of the posterior's.
        noisy: DDNM+, which allows for the observation's noise; otherwise DDNM, which takes y as exact.
    """

    steps: int = number(100, 1)
    travel_length: int = number(1, 1)
    travel_visits: int = number(1, 1)
    eta: float = number(0.85, 0, 1)
    noisy: bool = True

    @classmethod
    def time_travel(cls) -> DDNMConfig:
        """Stretches of 10 steps gone through three times (``hq_demo/confs`` of the public code)."""
        return cls(travel_length=10, travel_visits=3)


class Scalings(NamedTuple):
    """Of a prediction's correction, and of the noise in the next latent: fresh, and kept from the last one."""

    correction: Tensor
    fresh: Tensor
    kept: Tensor


def scalings(s: Level, picture_std: Tensor, latent_std: Tensor, eta: float, spectral: bool) -> Scalings:
    """Sigma_t and Phi_t of DDNM+ for the step to level ``s``, given the noise that A^+ y brings with it.

    The correction is whole where its noise is less than that of ``s``, else shortened to that, and fresh noise fills
    up what is missing. ``spectral`` is the form by singular values (appendix, eq. 51), with standard deviation 0 in the
    null space; the other is the simplified one (eq. 17 and 19).
    """
    keeps = (1 - eta**2) ** 0.5
    fits = s.alpha * picture_std <= s.sigma
    correction = torch.where(fits, 1.0, s.sigma * (keeps if spectral else 1.0) / (s.alpha * picture_std))
    room = (s.sigma**2 - (s.alpha * latent_std) ** 2).clamp(min=0).sqrt()
    if not spectral:
        return Scalings(correction, eta * room, keeps * room)
    null = latent_std == 0
    fresh = torch.where(null | (room == 0), eta * s.sigma, room)
    return Scalings(correction, fresh, torch.where(null, keeps * s.sigma, 0.0))


@torch.no_grad()
def carried_noise(
    prior: CountedPrior, observation: Observation, streams: NoiseStreams, spectral: bool
) -> tuple[Tensor, Tensor]:
    """Standard deviations of the noise that A^+ y brings with it, in units of latents: by pixel, and by latent.

    Where the operator selects pixels there is one for each (0 where hidden), else one for all, as if A^+ left noise as
    it is, which the simplified form assumes. What the encoder makes of noise is measured, once.
    """
    operator = observation.operator
    picture = operator.pinv(observation.y)
    noise = observation.noise_std * streams.normal(picture)
    moved = prior.encode(picture + noise) - prior.encode(picture)
    std = (_mean_square(moved) / _mean_square(noise)).sqrt() * observation.noise_std
    std = std.view(-1, *[1] * (picture.ndim - 1))
    if not spectral:
        return std, std
    _, keep = known_latents(prior, observation)
    by_pixel = std * operator.pinv(observation.observed.to(picture.dtype))
    return by_pixel, keep * F.adaptive_max_pool2d(by_pixel.amax(1, keepdim=True), keep.shape[-2:])


@sampler(DDNMConfig, gaussian_only("DDNM"), gradients=False)
@torch.no_grad()
def ddnm(prior, observation, config, streams, callback):
    """DDNM and DDNM+ (Wang et al. 2023, algorithms 1 and 2): needs no gradient.

    Every predicted picture x is replaced by x + Sigma_t A^+ (y - A x) (eq. 13 and 17). In a latent space that picture
    is decoded and encoded again, and what the autoencoder cannot reproduce is an error of the method.
    """
    operator, moves = observation.operator, config.moves(prior)
    spectral = operator.selects and observation.y.ndim == 4
    none = torch.zeros((), dtype=prior.dtype, device=prior.device)
    stds = carried_noise(prior, observation, streams, spectral) if config.noisy else (none, none)
    z = pure_noise(prior, moves[0].step.t, streams)
    for _, step, jump in reported_steps(moves, callback):
        if jump:
            z = noised(z, step.level, step.next, streams)
            continue
        z0 = prior.denoise(z, step.t)
        eps = (z - step.level.alpha * z0) / step.level.sigma
        scale = scalings(step.next, *stds, config.eta, spectral)
        x = prior.decode(z0)
        x = x + scale.correction * operator.pinv(observation.residual(x))
        z = step.next.alpha * prior.encode(x) + scale.fresh * streams.normal(z) + scale.kept * eps
    return z


def _mean_square(x: Tensor) -> Tensor:
    return (x**2).flatten(1).mean(1)
