"""Blended (replacement) sampling: overwrite what is known, at every noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import DiffusionPrior
from ..diffusion.schedule import CLEAN, reverse_mean
from ..inference.batches import sample_in_batches
from ..inference.chain import pure_noise
from ..inference.progress import Callback, Progress
from ..inference.results import SampleResult
from ..measurement.observation import Observation
from .config import SamplerConfig
from .known import check_selects, known_latents


@dataclass(frozen=True, kw_only=True)
class BlendedConfig(SamplerConfig):
    """``steps`` even in time; ``eta`` 0 for DDIM, 1 for ancestral noise."""

    steps: int = 250
    eta: float = 0.0


def blended(
    prior: DiffusionPrior,
    observation: Observation,
    num_samples: int,
    config: BlendedConfig | None = None,
    *,
    generator: torch.Generator,
    first: int = 0,
    noise: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleResult:
    """Replacement sampling (Blended Latent Diffusion, Avrahami et al. 2023): needs no gradient.

    Raises:
        InputError: the observation is not an inpainting one, or not pictures.
    """
    check_selects(observation, "blended sampling")
    settings = config or BlendedConfig()
    times = settings.grid(prior)
    levels = [prior.schedule.level(t) for t in times] + [CLEAN]

    def chain(counted, observation, streams, report):
        known, keep = known_latents(prior, observation)
        z = pure_noise(counted, times[0], streams)
        for i, t in enumerate(times):
            z = keep * (levels[i].alpha * known + levels[i].sigma * streams.normal(z)) + (1 - keep) * z
            with torch.no_grad():
                prediction = counted.denoise(z, t)
            mean, variance = reverse_mean(z, prediction, levels[i + 1], levels[i], settings.eta)
            z = mean + math.sqrt(variance) * streams.normal(z) if variance > 0 else mean
            report(Progress("sample", i + 1, len(times)))
        return keep * known + (1 - keep) * z

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, noise=noise,
        callback=callback,
    )  # fmt: skip
