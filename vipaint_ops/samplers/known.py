"""Latents of the known part of a picture, for methods that overwrite them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.prior import CountedPrior
from ..errors import InputError
from ..measurement.observation import Observation


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
    seen = observation.operator.adjoint(observation.observed.to(picture.dtype))
    holes = (seen == 0).to(picture.dtype).amax(1, keepdim=True)
    return known, 1 - F.adaptive_max_pool2d(holes, known.shape[-2:])
