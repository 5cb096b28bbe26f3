"""The guided reverse chain that every ancestral method shares: from a noise level to a clean latent."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import CLEAN, NoiseSchedule, reverse_mean
from ..diffusion.streams import NoiseStreams
from ..errors import InputError
from ..measurement.observation import Observation
from .corrections import CORRECTIONS, GuidanceConfig
from .progress import Callback, Progress

START_RATIO, END_RATIO = 150.0, 0.05
"""Noise-to-signal ratios sigma / (alpha data_std) between which chains run, where the schedule reaches them."""


def end_time(schedule: NoiseSchedule, data_std: float) -> float:
    """Where a chain takes its last step: noise hardly matters below."""
    return schedule.time_at_ratio(END_RATIO * data_std)


def start_time(schedule: NoiseSchedule, data_std: float) -> float:
    """Where a chain from pure noise begins: as noisy as the schedule allows, short of alpha = 0."""
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


def pure_noise(prior: CountedPrior, t: float, streams: NoiseStreams) -> Tensor:
    """Where a chain begins: z at time ``t`` with nothing of a picture in it, one row a stream."""
    return prior.schedule.sigma(t) * streams.first(prior.zeros(streams.rows))


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise InputError(f"steps is {steps}; it must be at least 1")


def guided_chain(
    prior: CountedPrior,
    observation: Observation,
    z: Tensor,
    times: list[float],
    guidance: str,
    config: GuidanceConfig,
    streams: NoiseStreams,
    eta: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """Run the reverse chain from ``z`` at ``times[0]`` to a clean latent, correcting every prediction.

    Args:
        z: ``[batch, *latent_shape]`` at time ``times[0]``.
        times: decreasing; the last is followed by the step to the clean latent.
        guidance: a name in :data:`vipaint_ops.inference.corrections.CORRECTIONS`.

    Returns:
        Clean latents, ``[batch, *latent_shape]``.
    """
    levels = [prior.schedule.level(t) for t in times] + [CLEAN]
    for i, t in enumerate(times):
        guided = CORRECTIONS[guidance](prior, observation, z, t, levels[i + 1], streams, config)
        mean, variance = reverse_mean(z, guided.z0, levels[i + 1], levels[i], eta * guided.eta)
        z = mean + math.sqrt(variance) * streams.normal(z) if variance > 0 else mean
        if callback is not None:
            callback(Progress("sample", i + 1, len(times)))
    return z
