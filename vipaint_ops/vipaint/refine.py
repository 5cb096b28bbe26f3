"""From the fitted posterior to pictures: draw z at T_s, then a guided reverse chain to the clean latent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior, DiffusionPrior
from ..diffusion.streams import NoiseStreams
from ..inference.batches import sample_in_batches
from ..inference.chain import end_time, guided_chain, time_grid
from ..inference.particles import particle_chain
from ..inference.progress import Callback, Progress
from ..inference.results import Populations, SampleResult
from ..measurement.observation import Observation
from .config import RefineConfig
from .consistency import excess
from .posterior import HierarchicalPosterior, log_ratio
from .published import v1 as published_v1
from .published import v2 as published_v2

Chain = Callable[[CountedPrior, Observation, Tensor, float, RefineConfig, NoiseStreams, Callback], Tensor]
"""``chain(prior, observation, z, T_s, config, streams, callback)``: from z at T_s to clean latents."""

CHAINS: dict[str, Chain] = {"published_v1": published_v1.refine, "published_v2": published_v2.refine}


def _guided(
    prior: CountedPrior, observation: Observation, z: Tensor, start: float, config: RefineConfig,
    streams: NoiseStreams, callback: Callback,
) -> Tensor:  # fmt: skip
    """The library's own: a correction before every reverse step."""
    times = time_grid(prior.schedule, start, end_time(prior.schedule, prior.data_std), config.steps)
    return guided_chain(prior, observation, z, times, config.guidance, config.settings, streams, config.eta, callback)


def _drawn_again(
    prior: DiffusionPrior, counted: CountedPrior, observation: Observation, z0: Tensor,
    draw: Callable[[NoiseStreams, Callback], Tensor], attempts: int, streams: NoiseStreams, callback: Callback,
) -> Tensor:  # fmt: skip
    """``z0`` with the samples that miss the observation replaced by better ones, where further attempts find some."""

    def missed(z0: Tensor) -> Tensor:
        with torch.no_grad():
            return excess(prior, observation, counted.decode(z0))

    worst = missed(z0)
    for _ in range(attempts - 1):
        rows = (worst > 1).nonzero()[:, 0]
        if len(rows) == 0:
            break
        fresh = draw(streams.only(rows.tolist()), lambda p: callback(Progress("sample", p.total, p.total)))
        found = missed(fresh)
        better = found < worst[rows]
        z0[rows[better]], worst[rows[better]] = fresh[better], found[better]
    return z0


def _particles(
    prior: CountedPrior, observation: Observation, q: HierarchicalPosterior, config: RefineConfig,
    streams: NoiseStreams, callback: Callback,
) -> tuple[Tensor, Populations]:  # fmt: skip
    """The fitted posterior as the proposal of a particle filter; several are taken to have weighed y already."""
    with torch.no_grad():
        walk = list(q.walk(prior, streams.rows, streams))
    times = time_grid(prior.schedule, q.times[-1], end_time(prior.schedule, prior.data_std), config.steps)
    weighed = q.components > 1
    log_weights = None if weighed else log_ratio(walk, prior.data_std)
    return particle_chain(
        prior, observation, walk[-1].z, log_weights, times, config.particles, config.settings, streams, callback,
        weighed,
    )  # fmt: skip


def sample_posterior(
    prior: DiffusionPrior,
    observation: Observation,
    posterior: HierarchicalPosterior,
    num_samples: int,
    config: RefineConfig | None = None,
    *,
    generator: torch.Generator,
    first: int = 0,
    callback: Callback | None = None,
) -> SampleResult:
    """Draw restorations of ``observation`` from a fitted posterior (VIPaint, section 4.3).

    Args:
        num_samples: how many.
        generator: the source of all randomness.
        first: index of the first sample; with the same seed, sample k of a batch is ``first=k, num_samples=1``.
        callback: called after every reverse step.

    Raises:
        InputError: the posterior was fitted with another model or for another size.
    """
    settings = config or RefineConfig()
    if settings.guidance in CHAINS:
        observation.require_gaussian(f"the setting {settings.guidance}")
    if settings.particles > 1:
        observation.require_gaussian("weighing particles")
    posterior.check(prior)
    posterior = posterior.to(prior.device, prior.dtype)
    refine = CHAINS.get(settings.guidance, _guided)

    populations: list[Populations] = []

    def chain(counted: CountedPrior, observation: Observation, streams: NoiseStreams, report: Callback):
        if settings.particles > 1:
            z, drawn = _particles(counted, observation, posterior, settings, streams, report)
            populations.append(drawn)
            return z

        def draw(streams: NoiseStreams, report: Callback) -> Tensor:
            z = posterior.sample(counted, streams.rows, streams)
            return refine(counted, observation, z, posterior.times[-1], settings, streams, report)

        z0 = draw(streams, report)
        if settings.attempts == 1 or settings.guidance != "kalman" or observation.likelihood.robust:
            return z0
        return _drawn_again(prior, counted, observation, z0, draw, settings.attempts, streams, report)

    result = sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first,
        population=settings.particles, callback=callback,
    )  # fmt: skip
    return replace(result, populations=Populations.joined(populations)) if populations else result
