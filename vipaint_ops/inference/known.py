"""Latents of the known part of a picture, for methods that overwrite them."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import Level
from ..errors import InputError
from ..measurement.observation import Observation

FIRST_REFRESH, REFRESH_FACTOR = 3.0, 3.0
"""Noise-to-signal ratio at which known latents are first encoded anew, and the factor to the next one."""


LEAST_USED = 0.5
"""Share of the known pixels that lies in known latents, below which a warning is given."""

REFRESHES = 3
"""How often known latents are encoded anew by default."""


def replaces_pixels(observation: Observation) -> bool:
    """Whether the known pixels of a picture can be overwritten: it is an inpainting one, with Gaussian noise."""
    return not observation.likelihood.robust and observation.operator.selects and observation.y.ndim == 4


def pixels_only(method: str) -> Callable[[Observation], None]:
    """The check of a method that overwrites known pixels.

    It raises InputError where the observation is not an inpainting one, not of a picture, or its noise not Gaussian.
    """

    def check(observation: Observation) -> None:
        observation.require_gaussian(method)
        if not observation.operator.selects or observation.y.ndim != 4:
            raise InputError(f"{method} replaces known pixels: it needs an Inpainting observation of a picture")

    return check


def known_latents(prior: CountedPrior, observation: Observation) -> tuple[Tensor, Tensor]:
    """The encoded picture ``[1, *latent_shape]``, and 1 where it is known, ``[1, 1, height, width]``.

    A latent counts as known when every pixel it covers is observed, so no hole leaks into it.
    """
    picture = observation.operator.pinv(observation.y)
    with torch.no_grad():
        known = prior.encode(picture)
    return known, _keep(_holes(observation, picture), known)


def warn_if_unused(observation: Observation, keep: Tensor) -> None:
    """Warn where few of the known pixels lie in known latents, as with scattered ones: no other pixel is used.

    Args:
        keep: 1 at known latents, ``[1, 1, height, width]``.
    """
    known = 1 - _holes(observation, observation.operator.pinv(observation.y)).amax(1)
    used = (keep.mean() / known.mean()).item()
    if used < LEAST_USED:
        warnings.warn(
            f"{used:.0%} of the known pixels are used: a method that overwrites latents needs all pixels of a latent. "
            "Use Kalman guidance, as in the presets fast and balanced",
            stacklevel=2,
        )


class Known:
    """Known latents that follow the chain: the encoder's view of them depends on the pixels in the hole beside them.

    At first the hole is filled smoothly from the known pixels. Where the noise first falls to the ratios
    sigma / (alpha data_std) of 3, 1, 1/3 and so on, it is filled with the chain's own prediction: one decode and one
    encode each.

    Args:
        refreshes: how many of these ratios are used; none for a method without the decoder.

    Attributes:
        latents: the encoded picture, ``[1 or batch, *latent_shape]``.
        keep: 1 where it is known, ``[1, 1, height, width]``.
    """

    def __init__(self, prior: CountedPrior, observation: Observation, refreshes: int):
        self._prior, self._picture = prior, observation.operator.pinv(observation.y)
        self._holes = _holes(observation, self._picture)
        self._ratios = [FIRST_REFRESH / REFRESH_FACTOR**i for i in range(refreshes)]
        with torch.no_grad():
            self.latents = prior.encode(filled(self._picture, self._holes))
        self.keep = _keep(self._holes, self.latents)
        warn_if_unused(observation, self.keep)

    def refresh(self, z0: Tensor, level: Level) -> None:
        """Encode the picture anew, its hole filled with the decoded ``z0``, where ``level`` reaches the next ratio."""
        ratio = level.sigma / (level.alpha * self._prior.data_std)
        left = [value for value in self._ratios if value < ratio]
        if len(left) == len(self._ratios):
            return
        self._ratios = left
        self.latents = self.completed(z0)

    @torch.no_grad()
    def completed(self, z0: Tensor) -> Tensor:
        """The latents of the picture with its hole filled by the decoded ``z0``."""
        return self._prior.encode(torch.lerp(self._picture, self._prior.decode(z0), self._holes))

    def put_into(self, z0: Tensor) -> Tensor:
        """``z0`` with its known part replaced."""
        return self.keep * self.latents + (1 - self.keep) * z0


def filled(picture: Tensor, holes: Tensor) -> Tensor:
    """``picture`` with its hidden pixels (``holes`` is 1) replaced by averages of the known ones, coarse to fine.

    All known pixels are averaged over 2 by 2 blocks, again and again, until no block is without any (pull and push,
    Gortler et al. 1996).
    """
    if not holes.any() or holes.all():
        return picture * (1 - holes)
    weight = F.avg_pool2d(1 - holes, 2, ceil_mode=True)
    mean = F.avg_pool2d(picture * (1 - holes), 2, ceil_mode=True) / weight.clamp(min=1e-6)
    coarse = filled(mean, (weight == 0).to(picture.dtype))
    smooth = F.interpolate(coarse, picture.shape[-2:], mode="bilinear", align_corners=False)
    return torch.lerp(picture, smooth, holes)


def _holes(observation: Observation, picture: Tensor) -> Tensor:
    """1 where the picture is hidden, ``[1, channels, height, width]``."""
    seen = observation.operator.adjoint(observation.observed.to(picture.dtype))
    return (seen == 0).to(picture.dtype)


def _keep(holes: Tensor, latents: Tensor) -> Tensor:
    return 1 - F.adaptive_max_pool2d(holes.amax(1, keepdim=True), latents.shape[-2:])
