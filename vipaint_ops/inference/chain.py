"""The guided reverse chain: from a noise level to a clean latent."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import NoiseSchedule, ReverseStep, reverse_mean
from ..diffusion.streams import NoiseStreams
from ..errors import InputError
from ..measurement.observation import Observation
from .corrections import Correction

START_RATIO, END_RATIO = 150.0, 0.05
"""Noise-to-signal ratios sigma / (alpha data_std) between which chains run, where the schedule reaches them."""
MOVES, KEPT = 6, 0.3
"""Langevin moves at a first level that still shows the data, and the share of z that each of them keeps."""


def end_time(schedule: NoiseSchedule, data_std: float) -> float:
    """The time of a chain's last step: there is hardly any noise below."""
    return schedule.time_at_ratio(END_RATIO * data_std)


def start_time(schedule: NoiseSchedule, data_std: float) -> float:
    """The time of a chain's first step from pure noise: as noisy as the schedule allows, short of alpha = 0."""
    return schedule.time_at_ratio(START_RATIO * data_std)


def time_grid(schedule: NoiseSchedule, start: float, end: float, steps: int) -> list[float]:
    """``steps`` times from ``start`` down to ``end``, even in log-SNR; ``start`` alone where it lies below ``end``.

    Raises:
        InputError: ``steps`` is less than 1.
    """
    _check_steps(steps)
    if start <= end:
        return [start]
    values = torch.linspace(schedule.log_snr(start), schedule.log_snr(end), steps, dtype=torch.float64)
    return [start, *(schedule.time_at_log_snr(v) for v in values.tolist()[1:])]


def even_times(start: float, steps: int) -> list[float]:
    """``steps`` times from ``start`` down, even in time; the step after the last one would be 0.

    Raises:
        InputError: ``steps`` is less than 1.
    """
    _check_steps(steps)
    return torch.linspace(start, 0.0, steps + 1, dtype=torch.float64).tolist()[:-1]


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise InputError(f"steps is {steps}; it must be at least 1")


def pure_noise(prior: CountedPrior, t: float, streams: NoiseStreams) -> Tensor:
    """The start of a chain: z at time ``t`` without any picture, one row a stream."""
    return prior.schedule.sigma(t) * streams.first(prior.zeros(streams.rows))


def noisiest(prior: CountedPrior, t: float, streams: NoiseStreams) -> Tensor:
    """z at the first level of a chain, one row a stream: pure noise, moved towards p(z_t) where the data show in it.

    They do where alpha |z_0| exceeds sigma. There, pure noise gives modes wrong shares. A move is preconditioned
    Crank-Nicolson Langevin (Cotter et al. 2013), which leaves N(0, sigma^2) as it is where the network predicts 0:

        z <- rho z + (1 - rho) alpha zh(z) + sqrt(1 - rho^2) sigma noise
    """
    z, (alpha, sigma) = pure_noise(prior, t, streams), prior.schedule.level(t)
    if z[0].numel() * (alpha * prior.data_std) ** 2 <= sigma**2:
        return z
    with torch.no_grad():
        for _ in range(MOVES):
            towards = KEPT * z + (1 - KEPT) * alpha * prior.denoise(z, t)
            z = towards + math.sqrt(1 - KEPT**2) * sigma * streams.normal(z)
    return z


def reverse_step(z: Tensor, z0: Tensor, step: ReverseStep, streams: NoiseStreams, eta: float = 1.0) -> Tensor:
    """A draw of z at ``step.next``, given z at ``step.level`` and a prediction of z_0 (:func:`reverse_mean`)."""
    mean, variance = reverse_mean(z, z0, step.next, step.level, eta)
    return mean + math.sqrt(variance) * streams.normal(mean) if variance > 0 else mean


def guided_chain(
    prior: CountedPrior,
    observation: Observation,
    z: Tensor,
    steps: Iterable[ReverseStep],
    correction: Correction,
    streams: NoiseStreams,
    eta: float = 1.0,
) -> Tensor:
    """Run the reverse chain from ``z`` to a clean latent, with every prediction corrected.

    Args:
        z: ``[batch, *latent_shape]`` at the time of the first step.
        steps: of :meth:`~vipaint_ops.diffusion.schedule.NoiseSchedule.reverse_steps`.
        eta: of the reverse steps, times that of the correction.

    Returns:
        Clean latents, ``[batch, *latent_shape]``.
    """
    for step in steps:
        corrected = correction(prior, observation, z, step, streams)
        z = reverse_step(z, corrected.z0, step, streams, eta * corrected.eta)
    return z
