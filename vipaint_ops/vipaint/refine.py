"""From the fitted posterior to pictures: draw z at T_s, then a guided reverse chain to the clean latent."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..ancestral import SampleResult, end_time, guided_chain, time_grid
from ..batches import sample_in_batches
from ..guidance import GuidanceConfig
from ..noise import NoiseStreams
from ..observation import Observation
from ..prior import CountedPrior, DiffusionPrior
from ..progress import Callback
from .posterior import HierarchicalPosterior


@dataclass(frozen=True)
class RefineConfig:
    """Settings of the refinement.

    Attributes:
        guidance: "kalman" (no step size, keeps the spread), "pseudo_inverse" or "dps".
        steps: reverse steps from T_s to the clean latent, even in log-SNR.
        eta: 1 for ancestral noise, 0 for none.
        batch_size: samples computed together; it changes memory, not results.
        settings: of the correction.
    """

    guidance: str = "kalman"
    steps: int = 8
    eta: float = 1.0
    batch_size: int = 8
    settings: GuidanceConfig = field(default_factory=GuidanceConfig)


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
    posterior.check(prior)
    posterior = posterior.to(prior.device, prior.dtype)
    end = end_time(prior.schedule, prior.data_std)
    times = time_grid(prior.schedule, posterior.times[-1], end, settings.steps)

    def chain(counted: CountedPrior, observation: Observation, streams: NoiseStreams, report: Callback):
        z = posterior.sample(counted, streams.rows, streams)
        return guided_chain(
            counted, observation, z, times, settings.guidance, settings.settings, streams, settings.eta, report
        )

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, callback=callback
    )
