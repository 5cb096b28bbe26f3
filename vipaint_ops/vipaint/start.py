"""The start of a fit: keypoints chosen by noise level, parameters from a short guided run."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import Level, NoiseSchedule, reverse_mean, transition
from ..diffusion.streams import NoiseStreams
from ..inference.batches import among_batches
from ..inference.chain import end_time, guided_chain, noisiest, pure_noise, start_time, time_grid
from ..inference.particles import Particles, particle_chain, weighs_exactly
from ..inference.progress import Callback, reported
from ..measurement.observation import Observation
from .config import FitConfig
from .posterior import HierarchicalPosterior

GATE_RANGE = (0.05, 0.95)
UNDECIDED = 4.5
"""Noise-to-signal ratio sigma / (alpha data_std) above which the layout is undecided: long steps may draw all of their
noise afresh there."""


def keypoint_times(schedule: NoiseSchedule, data_std: float, ratios: tuple[float, ...]) -> tuple[float, ...]:
    """The times at which sigma / (alpha data_std) takes the given values: noise levels, not step numbers."""
    return tuple(schedule.time_at_ratio(r * data_std) for r in ratios)


def guided_draws(
    prior: CountedPrior,
    observation: Observation,
    config: FitConfig,
    end: float,
    streams: NoiseStreams,
    callback: Callback,
) -> Tensor:
    """Rough draws of z_0 given y, one row a stream: Kalman guidance in few steps down to ``end``."""
    start, last = start_time(prior.schedule, prior.data_std), prior.schedule.level(end)
    undecided = last.sigma >= UNDECIDED * prior.data_std * last.alpha
    kalman = replace(config.guidance, most_fresh=1.0) if undecided else config.guidance
    times = time_grid(prior.schedule, start, end, config.start_steps)
    batches, draws = streams.batches(config.batch_size), []
    for number, batch in enumerate(batches):
        steps = reported(prior.schedule.reverse_steps(times), among_batches(callback, number, len(batches)))
        draws.append(guided_chain(prior, observation, pure_noise(prior, start, batch), steps, kalman, batch))
    return torch.cat(draws)


def weighed_draws(
    prior: CountedPrior,
    observation: Observation,
    config: FitConfig,
    seed: int,
    callback: Callback,
) -> tuple[Tensor, str]:
    """A finished draw of z_0 given y a component, of even weight, and a description of how they were weighed.

    A few measurements weigh them: they are one population of particles. With many, weights would degenerate to those of
    one draw; then they are guided chains.
    """
    count, end = config.components, end_time(prior.schedule, prior.data_std)
    if weighs_exactly(observation):
        streams, start = NoiseStreams(seed, range(count)), start_time(prior.schedule, prior.data_std)
        particles = Particles(noisiest(prior, start, streams), count)
        times = time_grid(prior.schedule, start, end, config.start_steps)
        draws, population = particle_chain(prior, observation, particles, times, config.guidance, streams, callback)
        return draws, str(population)
    draws = guided_draws(prior, observation, config, end, NoiseStreams(seed, range(count)), callback)
    reason = "their noise is not Gaussian" if observation.likelihood.robust else "too many measurements for weights"
    return draws, f"{count} guided chains, not weighed: {reason}"


def matched_posterior(
    prior: CountedPrior, times: tuple[float, ...], draws: Tensor, eta: float, streams: NoiseStreams
) -> HierarchicalPosterior:
    """The hierarchy whose moments match those of ``draws`` of z_0, elementwise.

    With mean m and variance v of the draws, Var(z_t) = alpha_t^2 v + sigma_t^2, and z_s regresses on z_t
    with slope a Var(z_s) / Var(z_t). The gate is that slope over the prior's own, where v is the
    variance of all latents; mu_i is the part of the mean that the gate leaves.
    """
    mean, variance = draws.mean(0), draws.var(0)
    prior_variance = prior.data_std**2
    shape = (len(times), *mean.shape)
    means, log_stds, gates = (torch.zeros(shape, dtype=mean.dtype, device=mean.device) for _ in range(3))
    level = prior.schedule.level(times[0])
    means[0], log_stds[0] = mean, 0.5 * _marginal(level, variance).log()
    posterior = HierarchicalPosterior(times, means, log_stds, gates, eta)
    for k in range(1, len(times)):
        z = level.alpha * draws + level.sigma * streams.normal(draws)
        above, level = level, prior.schedule.level(times[k])
        a, _ = transition(level, above)
        slope = a * _marginal(level, variance) / _marginal(above, variance)
        prior_slope = a * _marginal(level, prior_variance) / _marginal(above, prior_variance)
        gate = (slope / prior_slope).clamp(*GATE_RANGE)
        with torch.no_grad():
            p_mean, _ = reverse_mean(z, prior.denoise(z, times[k - 1]), level, above, eta)
        means[k] = (level.alpha * mean - gate * p_mean.mean(0)) / ((1 - gate) * level.alpha)
        log_stds[k] = 0.5 * (_marginal(level, variance) - slope**2 * _marginal(above, variance)).log()
        gates[k] = gate.logit()
    return posterior


def _marginal(level: Level, variance):
    return level.alpha**2 * variance + level.sigma**2
