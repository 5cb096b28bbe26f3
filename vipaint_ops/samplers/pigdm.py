"""PiGDM: pseudo-inverse guidance, one variance for all of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import DiffusionPrior
from ..inference.batches import sample_in_batches
from ..inference.chain import guided_chain, pure_noise
from ..inference.corrections import GuidanceConfig
from ..inference.progress import Callback
from ..inference.results import SampleResult
from ..measurement.observation import Observation
from .config import SamplerConfig


@dataclass(frozen=True, kw_only=True)
class PiGDMConfig(SamplerConfig):
    """Published: 100 steps, even in time; ``eta`` 1, ancestral noise (0 for none)."""

    steps: int = 100
    eta: float = 1.0


def pigdm(
    prior: DiffusionPrior,
    observation: Observation,
    num_samples: int,
    config: PiGDMConfig | None = None,
    *,
    generator: torch.Generator,
    first: int = 0,
    noise: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleResult:
    """PiGDM (Song et al. 2023, eq. 6-8), with the gradient of ln N(y; A zh, r^2 A A^T + sigma_y^2) in the score itself.

    r^2 is the variance of z_0 given z_t for independent latents (their appendix), so samples are right where latents
    are independent and of equal variance; there is no step size.
    """
    settings = config or PiGDMConfig()
    times = settings.grid(prior)

    def chain(counted, observation, streams, report):
        z = pure_noise(counted, times[0], streams)
        return guided_chain(
            counted, observation, z, times, "pseudo_inverse", GuidanceConfig(), streams, settings.eta, report
        )

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, noise=noise,
        callback=callback,
    )  # fmt: skip
