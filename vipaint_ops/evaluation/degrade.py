"""Test cases: clean pictures seen through an operator, with noise."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..measurement.likelihood import Gaussian, Likelihood
from ..measurement.observation import Observation
from ..operators import Operator


def degrade(
    image: Tensor,
    operator: Operator,
    noise_std: float,
    *,
    generator: torch.Generator,
    likelihood: Likelihood | None = None,
) -> Observation:
    """Measure a clean picture: y = A x + noise of scale ``noise_std``, unclamped, and zero where nothing is measured.

    Args:
        image: ``[1, channels, height, width]`` in [-1, 1].
        generator: on the CPU, so that a seed means the same noise on every device.
        likelihood: the law of the noise, Gaussian by default.

    Raises:
        InputError: the operator does not take images of this size.
    """
    try:
        measured = operator(image)
    except RuntimeError as error:
        size = "x".join(map(str, image.shape[2:]))
        raise InputError(f"image is {size} (height x width), which the operator does not take ({error})") from error
    likelihood = likelihood or Gaussian()
    y = measured + noise_std * likelihood.draw(measured, generator)
    return Observation(torch.where(operator.observed(y), y, 0.0), operator, noise_std, likelihood)


def response(operator: Operator, height: int, width: int) -> Tensor:
    """What ``operator`` makes of a picture of one bright pixel in the middle: its kernel, if it is a blur.

    Args:
        height, width: of the picture.

    Returns:
        ``[1, channels, rows, columns]``, unclamped; black is 0 and the pixel 1.
    """
    picture = torch.zeros(1, 3, height, width)
    picture[..., height // 2, width // 2] = 1
    return operator(picture)
