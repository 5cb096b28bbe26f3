"""Borders that bring a picture to a size that a model takes. Needs no Pillow."""

from __future__ import annotations

from torch import Tensor

from ..measurement.observation import Observation
from ..operators import Compose, Crop


def pad_observation(observation: Observation, multiple: int) -> Observation:
    """The observation of a picture extended at the right and the bottom to sides that are multiples of ``multiple``.

    The added border is not measured and constrains nothing. :func:`crop_to` removes it from the samples.

    Raises:
        InputError: the operator has no measurements of this size.
    """
    rows, columns = observation.y.shape[-2:]
    height, width = observation.operator.picture_size((rows, columns))
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return observation
    crop = Crop(height, width, below, right)
    operator = Compose(crop, observation.operator)
    return Observation(observation.y, operator, observation.noise_std, observation.likelihood)


def crop_to(images: Tensor, height: int, width: int) -> Tensor:
    """The top left ``height`` x ``width`` pixels: removes the border of :func:`pad_observation`."""
    return images[..., :height, :width]
