"""Test cases: measurements of clean pictures, with noise."""

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
    """Measure a clean picture: y = A x + noise of scale ``noise_std``. Unclamped; unmeasured entries are 0.

    Args:
        image: ``[1, channels, height, width]`` in [-1, 1].
        generator: on the CPU, so that a seed gives the same noise on every device.
        likelihood: the law of the noise, Gaussian by default.

    Raises:
        InputError: the operator does not take images of this size, or they are no floating-point numbers.
    """
    if not image.is_floating_point():
        raise InputError(f"image is of {image.dtype}; give floating-point numbers in [-1, 1]")
    measured = operator(image)
    likelihood = likelihood or Gaussian()
    y = measured + noise_std * likelihood.draw(measured, generator)
    return Observation(torch.where(operator.observed(y), y, 0.0), operator, noise_std, likelihood)


def response(operator: Operator, height: int, width: int) -> Tensor:
    """The impulse response of ``operator``, for a pixel in the middle of a picture: for a blur, its kernel.

    Args:
        height, width: of the picture, which is 1 at the pixel and 0 elsewhere.

    Returns:
        ``[1, channels, rows, columns]``, unclamped.
    """
    picture = torch.zeros(1, 3, height, width)
    picture[..., height // 2, width // 2] = 1
    return operator(picture)
