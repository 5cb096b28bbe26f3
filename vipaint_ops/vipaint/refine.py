"""From the fitted posterior to pictures: draw z at T_s, then a guided reverse chain to the clean latent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..ancestral import SampleResult, end_time, guided_chain, time_grid
from ..batches import sample_in_batches
from ..errors import InputError
from ..guidance import CORRECTIONS, GuidanceConfig
from ..noise import NoiseStreams
from ..observation import Observation
from ..particles import Populations, particle_chain
from ..perceptual import Distance, check_perceptual
from ..prior import CountedPrior, DiffusionPrior
from ..progress import Callback, Progress
from . import published_v1, published_v2
from .consistency import excess
from .posterior import HierarchicalPosterior, log_ratio


@dataclass(frozen=True)
class RefineConfig:
    """Settings of the refinement.

    :meth:`published_v1` and :meth:`published_v2` are the two published settings (docs/published.md).

    Attributes:
        guidance: "kalman" (no step size, keeps the spread), "pseudo_inverse" or "dps"; "published_v1" and
            "published_v2" take the published chains, whose constants are their own.
        steps: reverse steps from T_s to the clean latent, even in log-SNR (the published chains: in time).
        eta: 1 for ancestral noise, 0 for none.
        attempts: how many chains a sample may take, kalman guidance only: one that misses the observation by more than
            its noise and the autoencoder account for (:mod:`~vipaint_ops.vipaint.consistency`) is drawn again, and the
            one that misses it least is kept. 1 takes the first.
        batch_size: samples computed together; it changes memory, not results. A population is never split.
        particles: size of the populations that samples are drawn in by sequential Monte Carlo (kalman guidance); 1
            draws each by itself. Particles of one population share ancestors. With few measurements they reach modes
            in proportion to their weight (docs/results.md); with many, weights degenerate and are tempered
            (:class:`~vipaint_ops.particles.Populations` says how much).
        settings: of the correction.
        perceptual_weight: of a perceptual distance added to the data term of the published chains (100 in v1, which
            adds it for inpainting, 1 in v2); 0 for none.
        perceptual: the distance; none for LPIPS from the package lpips.
    """

    guidance: str = "kalman"
    steps: int = 28
    eta: float = 1.0
    attempts: int = 3
    batch_size: int = 8
    particles: int = 1
    settings: GuidanceConfig = field(default_factory=GuidanceConfig)
    perceptual_weight: float = 0.0
    perceptual: Distance | None = None

    def __post_init__(self):
        if self.guidance not in (known := [*CORRECTIONS, *PUBLISHED]):
            raise InputError(f"guidance is {self.guidance!r}; choose one of {', '.join(known)}")
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; it must be at least 1")
        if self.attempts < 1:
            raise InputError(f"attempts is {self.attempts}; it must be at least 1")
        if self.particles < 1:
            raise InputError(f"particles is {self.particles}; it must be at least 1")
        if self.particles > 1 and (self.guidance != "kalman" or self.eta != 1):
            raise InputError(
                f"particles is {self.particles} with guidance {self.guidance!r} and eta {self.eta:g}: particles need "
                "kalman guidance and eta 1"
            )
        if self.perceptual_weight and self.guidance in CORRECTIONS:
            raise InputError(
                f"perceptual_weight is {self.perceptual_weight}, and {self.guidance} guidance has no term for it: set "
                "it to 0"
            )
        check_perceptual(self.perceptual_weight, self.perceptual)

    @classmethod
    def published_v1(cls) -> RefineConfig:
        """The first published setting: 400 unit steps from T_s = 0.4 (see published_v1.py)."""
        return cls(guidance="published_v1", steps=400, eta=0.2)

    @classmethod
    def published_v2(cls) -> RefineConfig:
        """The second published setting: 249 unit steps from T_s = 0.25, before the shift (see published_v2.py)."""
        return cls(guidance="published_v2", steps=249, eta=1.0)


Chain = Callable[[CountedPrior, Observation, Tensor, float, RefineConfig, NoiseStreams, Callback], Tensor]
"""``chain(prior, observation, z, T_s, config, streams, callback)``: from z at T_s to clean latents."""

PUBLISHED: dict[str, Chain] = {"published_v1": published_v1.refine, "published_v2": published_v2.refine}


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
    if settings.guidance in PUBLISHED:
        observation.require_gaussian(f"the setting {settings.guidance}")
    if settings.particles > 1:
        observation.require_gaussian("weighing particles")
    posterior.check(prior)
    posterior = posterior.to(prior.device, prior.dtype)
    refine = PUBLISHED.get(settings.guidance, _guided)

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
