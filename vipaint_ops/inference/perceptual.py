"""A perceptual distance of a picture from the measurements, by an optional library."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from ..errors import InputError
from ..measurement.observation import Observation

Distance = Callable[[Tensor, Tensor], Tensor]
"""Of pictures ``[batch, 3, height, width]`` about [-1, 1]: ``[batch]``, differentiable in the first."""


def check_perceptual(weight: float, distance: Distance | None) -> None:
    """Refuse a weight that cannot be used, before a network is loaded.

    Raises:
        InputError: it is negative or not finite, or it needs LPIPS and the package is not installed.
    """
    if not (math.isfinite(weight) and weight >= 0):
        raise InputError(f"perceptual_weight is {weight}; it must be 0 or more")
    if weight > 0 and distance is None and find_spec("lpips") is None:
        raise InputError(
            f"perceptual_weight is {weight}, which needs the package lpips: pip install lpips, or set it to 0"
        )


def lpips_distance(device: torch.device) -> Distance:
    """LPIPS (Zhang et al. 2018) with VGG features, from the package lpips, which fetches its weights at first use."""
    from lpips import LPIPS

    network = LPIPS(net="vgg", verbose=False).requires_grad_(False).eval().to(device)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return network(x.float(), y.float()).flatten().to(x.dtype)

    return distance


class PerceptualTerm:
    """``weight`` times the distance of A x from y, both zero (grey) where nothing is measured.

    Args:
        weight: 0 for no term at all: then neither a library nor a picture is needed.
        distance: none for :func:`lpips_distance`.

    Raises:
        InputError: the measurements are no pictures of three channels.
    """

    def __init__(self, observation: Observation, weight: float, distance: Distance | None = None):
        self._observation, self._weight = observation, weight
        if weight == 0:
            return
        shape = tuple(observation.y.shape)
        if len(shape) != 4 or shape[1] != 3:
            raise InputError(
                f"perceptual_weight is {weight}, and a perceptual distance is one of colour pictures; y has shape "
                f"{shape}: set it to 0"
            )
        self._distance = distance or lpips_distance(observation.y.device)
        self._measured = torch.where(observation.observed, observation.y, 0.0)

    def __call__(self, picture: Tensor) -> Tensor:
        """Of pictures x ``[batch, 3, height, width]``: ``[batch]``."""
        if self._weight == 0:
            return picture.new_zeros(len(picture))
        seen = self._measured - self._observation.residual(picture)
        return self._weight * self._distance(seen, self._measured.expand_as(seen))
