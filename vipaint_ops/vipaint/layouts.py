"""Layouts of a hole: components around different draws, fitted to evidence that a chain sees too late.

A chain decides the layout of a large hole at a noise-to-signal ratio of 4 to 8. What the known pixels beside the hole
say of it (the edge of a roof, a reflection) can be told from noise only at ratios of 3 to 1. A finished draw has a
layout already, so that this evidence has a gradient with respect to it. With h the hidden latents of a component and x
the known ones, it is the diffusion bound (VDM, Kingma et al. 2021, eq. 15) on

    ln p(x | h) >= -1/2 int E |x - zh_x(z_t)|^2 d SNR(t) + const.,    z_t = alpha_t (x, h) + sigma_t e,

from pure noise to the ratio 0.7: the part of the bound on ln p(z_0) that the known latents give. It needs no decoder.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.streams import NoiseStreams
from ..inference.batches import among_batches
from ..inference.chain import even_times, pure_noise, start_time
from ..inference.ding import ding_chain
from ..inference.known import REFRESHES, Known, pixels_only
from ..inference.linearised import exact
from ..inference.particles import systematic, tempered
from ..inference.progress import Callback, Progress
from ..measurement.observation import Observation
from .config import FitConfig
from .objective import BoundTerms
from .posterior import HierarchicalPosterior
from .recipe import Recipe

RATIOS = (2.8, 2.0, 1.4, 1.0, 0.7)
"""Noise-to-signal ratios sigma / (alpha data_std) at which the integrand is evaluated; one an iteration, in turn."""


def shares(ratios: tuple[float, ...]) -> list[float]:
    """The part of the integral over 1 / ratio^2, from 0 to that of the last ratio, that each ratio stands for."""
    snr = [1 / ratio**2 for ratio in ratios]
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(snr)), snr[-1]]
    return [b - a for a, b in pairwise(edges)]


_SHARES = shares(RATIOS)


class Layouts(Recipe):
    """The recipe of a fit whose components are layouts of a hole (docs/method.md, section 9).

    Raises:
        InputError: the observation is not an inpainting one, or not of a picture.
    """

    together = True

    def __init__(self, prior: CountedPrior, observation: Observation, config: FitConfig):
        pixels_only("the objective layouts")(observation)
        self._prior, self._observation, self._config = prior, observation, config

    def start(self, times: tuple[float, ...], seed: int, callback: Callback) -> HierarchicalPosterior:
        """A component around a finished draw of DInG each; of the keypoints, T_s alone is used."""
        prior, config, draws = self._prior, self._config, list[Tensor]()
        batches = NoiseStreams(seed, range(config.components)).batches(config.batch_size)
        first = start_time(prior.schedule, prior.data_std)
        steps = prior.schedule.reverse_steps(even_times(first, config.start_steps))

        def report(progress: Progress) -> None:
            callback(Progress("start", progress.step, progress.total))

        for number, streams in enumerate(batches):
            known, part = Known(prior, self._observation, REFRESHES), among_batches(report, number, len(batches))
            z = ding_chain(prior, known, pure_noise(prior, first, streams), steps, streams, part)
            draws.append(known.completed(z))
        self._completed, self._keep = torch.cat(draws), known.keep
        log_std = torch.full_like(self._completed[:1], math.log(prior.schedule.sigma(times[-1])))
        parts = [
            HierarchicalPosterior(times[-1:], draw[None], log_std, torch.zeros_like(log_std), config.eta)
            for draw in self._completed
        ]
        return HierarchicalPosterior.joined(parts)

    def loss(self, q: HierarchicalPosterior, streams: NoiseStreams) -> BoundTerms:
        """The negative evidence at the ratio whose turn it is, for the whole integral; a component a row."""
        rows, index = streams.dealt(q.components), len(q.history) % len(RATIOS)
        noise = streams.normal(self._completed[rows])
        loss = len(RATIOS) * self._missed(_means(q)[rows], self._completed[rows], index, noise)
        return BoundTerms(loss, torch.zeros_like(loss), torch.zeros_like(loss))

    def finish(self, q: HierarchicalPosterior, seed: int) -> HierarchicalPosterior:
        """The components resampled by their evidence: poor ones are dropped, good ones are there more than once.

        All have the same noise, so that only their layouts tell them apart.
        """
        if q.components == 1:
            return q
        found = torch.zeros(q.components, dtype=torch.float64)
        streams = NoiseStreams(seed, [0])
        for index in range(len(RATIOS)):
            noise = streams.normal(self._completed[:1])
            for start in range(0, q.components, self._config.batch_size):
                part = slice(start, start + self._config.batch_size)
                with torch.no_grad():
                    missed = self._missed(_means(q)[part], self._completed[part], index, noise)
                found[part] -= exact(missed)
        power = tempered(found[None])
        rows = systematic(power * found[None], torch.full((1,), 0.5))[0]
        parts = q.parts()
        mixture = HierarchicalPosterior.joined([parts[row] for row in rows.tolist()])
        kept = f"{len(rows.unique())} of {q.components} layouts kept"
        mixture.metadata = {"start": kept if power == 1 else f"{kept}, weights to the power {power.item():.2f}"}
        return mixture

    def _missed(self, means: Tensor, completed: Tensor, index: int, noise: Tensor) -> Tensor:
        """The share of :data:`RATIOS` ``index`` in the integral of the error of the known latents; ``[batch]``."""
        prior, keep = self._prior, self._keep
        t = prior.schedule.time_at_ratio(RATIOS[index] * prior.data_std)
        level = prior.schedule.level(t)
        z0 = keep * completed + (1 - keep) * means
        error = keep * (prior.denoise(level.alpha * z0 + level.sigma * noise, t) - completed)
        return 0.5 * _SHARES[index] / prior.data_std**2 * error.square().flatten(1).sum(1)


def _means(q: HierarchicalPosterior) -> Tensor:
    """mu at T_s, ``[components, *latent_shape]``."""
    return q.means.view(q.components, *q.latent_shape)
