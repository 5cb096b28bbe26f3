"""RePaint: replacement sampling that goes back and forth until the known and the new part agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..diffusion.prior import DiffusionPrior
from ..diffusion.schedule import CLEAN, reverse_mean
from ..inference.batches import sample_in_batches
from ..inference.chain import pure_noise
from ..inference.progress import Callback, Progress
from ..inference.results import SampleResult
from ..measurement.observation import Observation
from .known import check_selects, known_latents
from .travel import TravelConfig, noised


@dataclass(frozen=True, kw_only=True)
class RePaintConfig(TravelConfig):
    """Published: 250 steps, even in time, stretches of 10 gone through 10 times (section 5, and all configurations of
    the public code)."""

    steps: int = 250
    travel_length: int = 10
    travel_visits: int = 10


def repaint(
    prior: DiffusionPrior,
    observation: Observation,
    num_samples: int,
    config: RePaintConfig | None = None,
    *,
    generator: torch.Generator,
    first: int = 0,
    noise: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleResult:
    """RePaint (Lugmayr et al. 2022, algorithm 1 and section 4.2): needs no gradient.

    Before every ancestral step the known latents are overwritten by a fresh draw from q(z_t | z_0) of the encoded
    picture (eq. 8), which is taken as exact, and in the end by the encoded picture itself.

    Raises:
        InputError: the observation is not an inpainting one, or not pictures.
    """
    check_selects(observation, "RePaint")
    settings = config or RePaintConfig()
    times = settings.grid(prior)
    levels = [prior.schedule.level(t) for t in times] + [CLEAN]
    path = settings.path(len(times))
    total = sum(j > i for i, j in pairwise(path))

    def chain(counted, observation, streams, report):
        known, keep = known_latents(prior, observation)
        z, done = pure_noise(counted, times[0], streams), 0
        for i, j in pairwise(path):
            if j < i:
                z = noised(z, levels[i], levels[j], streams)
                continue
            z = keep * (levels[i].alpha * known + levels[i].sigma * streams.normal(z)) + (1 - keep) * z
            with torch.no_grad():
                prediction = counted.denoise(z, times[i])
            mean, variance = reverse_mean(z, prediction, levels[j], levels[i])
            z = mean + math.sqrt(variance) * streams.normal(z) if variance > 0 else mean
            done += 1
            report(Progress("sample", done, total))
        return keep * known + (1 - keep) * z

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, noise=noise,
        callback=callback,
    )  # fmt: skip
