"""Motion blur: the trace of a point on the sensor along the path of the camera during the exposure."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InputError
from .blur import Blur, centred

STEPS_PER_PIXEL = 16
TURN_STD, JOLTS = math.pi, 3.0
"""Of a shake of intensity 1: drift of the heading over the exposure, in radians; expected number of jolts."""


class MotionBlur(Blur):
    """Blur by a straight motion at constant speed.

    The kernel is the exposure along a line of kernel_size - 1 pixels through its centre, each instant shared among the
    four nearest pixels in proportion to their nearness (bilinear), so that lines at any angle are antialiased.

    Args:
        kernel_size: side of the kernel in pixels, odd.
        angle: of the line in degrees, counter-clockwise; 0 is horizontal.
    """

    def __init__(self, kernel_size: int = 61, angle: float = 0.0):
        if not math.isfinite(angle):
            raise InputError(f"angle is {angle}; it must be a number of degrees")
        turn = torch.tensor(math.radians(angle), dtype=torch.float64)
        super().__init__(_exposure(turn.expand(_instants(kernel_size)), kernel_size))

    @staticmethod
    def shake(kernel_size: int, intensity: float, generator: torch.Generator) -> Blur:
        """Blur by the shake of a hand: a random path at constant speed, of kernel_size - 1 pixels.

        The heading starts uniformly at random and drifts as a Brownian motion whose std is pi ``intensity`` over the
        whole exposure; jolts, a Poisson process of 3 ``intensity`` expected events, turn it to a new uniform heading.
        The path's centre of mass lies at the kernel's centre, so the picture is not shifted on average; a path of this
        length then always fits the kernel.

        Args:
            kernel_size: side of the kernel in pixels, odd.
            intensity: 0 is a straight line in a random direction, 1 a crumpled path.
            generator: on the CPU, so that a seed means the same path on every device.

        Raises:
            InputError: the intensity is outside [0, 1], or the size is not odd and positive.
        """
        if not 0 <= intensity <= 1:
            raise InputError(f"intensity is {intensity}; it must be within [0, 1]")
        count = _instants(kernel_size)
        uniform = 2 * math.pi * torch.rand(1 + count, generator=generator, dtype=torch.float64)
        drift = torch.randn(count, generator=generator, dtype=torch.float64) * TURN_STD * intensity / count**0.5
        jolts = torch.rand(count, generator=generator) < JOLTS * intensity / count
        return Blur(_exposure(uniform[0] + (drift + jolts * uniform[1:]).cumsum(0), kernel_size))


def _instants(kernel_size: int) -> int:
    return max(1, STEPS_PER_PIXEL * (kernel_size - 1))


def _exposure(headings: Tensor, kernel_size: int) -> Tensor:
    """The kernel, ``[kernel_size, kernel_size]``, of a path of kernel_size - 1 pixels, one equal step a heading."""
    pixels = centred(kernel_size)
    step = (kernel_size - 1) / len(headings)
    rows, columns = (_visited(step * direction, pixels) for direction in (-headings.sin(), headings.cos()))
    kernel = rows.T @ columns
    return kernel / kernel.sum()


def _visited(moves: Tensor, pixels: Tensor) -> Tensor:
    """The share of each instant on each pixel of one axis, ``[instants, pixels]``."""
    middles = moves.cumsum(0) - moves / 2
    return (1 - (middles[:, None] - middles.mean() - pixels).abs()).clamp(min=0)
