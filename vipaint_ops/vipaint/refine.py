"""From the fitted posterior to pictures: draw z at T_s, then run a guided reverse chain to the clean latent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior, DiffusionPrior
from ..diffusion.streams import NoiseStreams
from ..inference.batches import Request, sample_in_batches
from ..inference.chain import end_time, even_times, guided_chain, time_grid
from ..inference.ding import ding_chain
from ..inference.known import REFRESHES, Known, replaces_pixels
from ..inference.linearised import require_gradients
from ..inference.particles import Particles, particle_chain
from ..inference.progress import Callback, Progress, reported
from ..inference.results import Drawn, SampleResult
from ..measurement.observation import Observation
from .config import PUBLISHED, RefineConfig
from .consistency import excess
from .posterior import HierarchicalPosterior, log_ratio
from .published import v1, v2

Chain = Callable[[CountedPrior, Observation, Tensor, float, RefineConfig, NoiseStreams, Callback], Tensor]
"""``chain(prior, observation, z, T_s, config, streams, callback)``: from z at T_s to clean latents."""


def guided(prior, observation, z, start, config, streams, callback) -> Tensor:
    """The library's own :data:`Chain`: a correction before every reverse step."""
    times = time_grid(prior.schedule, start, end_time(prior.schedule, prior.data_std), config.steps)
    steps = reported(prior.schedule.reverse_steps(times), callback)
    return guided_chain(prior, observation, z, steps, config.guidance, streams, config.eta)


def ding(prior, observation, z, start, config, streams, callback) -> Tensor:
    """The :data:`Chain` of DInG for masks, with steps even in time; :func:`guided` for other observations."""
    if not replaces_pixels(observation):
        return guided(prior, observation, z, start, config, streams, callback)
    steps = prior.schedule.reverse_steps(even_times(start, config.steps))
    return ding_chain(prior, Known(prior, observation, REFRESHES), z, steps, streams, callback)


CHAINS: dict[str, Chain] = {
    "guided": guided,
    "ding": ding,
    "published_v1": v1.refine,
    "published_v2": v2.refine,
}
"""Chains by name."""


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
        first: number of the first sample; with the same seed, sample k of a batch is ``first=k, num_samples=1``.
        callback: called after every reverse step.

    Raises:
        InputError: the posterior was fitted to another observation, with another model or for another size, or
            gradients are switched off.
    """
    settings = config or RefineConfig()
    if settings.chain in PUBLISHED:
        observation.require_gaussian(f"the setting {settings.chain}")
    if settings.particles > 1:
        observation.require_gaussian("weighing particles")
    require_gradients(observation)
    posterior.check(prior)
    posterior.check_observation(observation)
    q = posterior.to(prior.device, prior.dtype)
    checks = settings.attempts > 1 and settings.kalman is not None and not observation.likelihood.robust
    chain = particles if settings.particles > 1 else checked if checks else drawn
    decoder = settings.decoder_for(observation)
    request = Request(num_samples, settings.batch_size, first, None, settings.particles, decoder)
    return sample_in_batches(
        prior, observation, partial(chain, q, settings), request, generator=generator, callback=callback
    )


def drawn(q: HierarchicalPosterior, config: RefineConfig, prior, observation, streams, callback) -> Tensor:
    """One chain a sample, from a draw at T_s."""
    z = q.sample(prior, streams)
    return CHAINS[config.chain](prior, observation, z, q.times[-1], config, streams, callback)


def checked(q: HierarchicalPosterior, config: RefineConfig, prior, observation, streams, callback) -> Tensor:
    """As :func:`drawn`; samples that miss the observation are replaced by better ones of further attempts, if any."""

    def missed(z0: Tensor) -> Tensor:
        with torch.no_grad():
            return excess(prior, observation, prior.decode(z0))

    def no_steps(progress: Progress) -> None:
        callback(Progress(progress.stage, progress.total, progress.total))

    z0 = drawn(q, config, prior, observation, streams, callback)
    worst = missed(z0)
    for _ in range(config.attempts - 1):
        rows = (worst > 1).nonzero()[:, 0]
        if len(rows) == 0:
            break
        fresh = drawn(q, config, prior, observation, streams.only(rows.tolist()), no_steps)
        found = missed(fresh)
        better = found < worst[rows]
        z0[rows[better]], worst[rows[better]] = fresh[better], found[better]
    return z0


def particles(q: HierarchicalPosterior, config: RefineConfig, prior, observation, streams, callback) -> Drawn:
    """Populations of particles, with the fitted posterior as their proposal."""
    assert config.kalman is not None
    with torch.no_grad():
        walk = list(q.walk(prior, streams))
    weighed = q.components > 1  # by y, in the fit
    log_weights = None if weighed else log_ratio(walk, prior.data_std)
    start = Particles(walk[-1].z, config.particles, log_weights, weighed)
    times = time_grid(prior.schedule, q.times[-1], end_time(prior.schedule, prior.data_std), config.steps)
    return particle_chain(prior, observation, start, times, config.kalman, streams, callback)
