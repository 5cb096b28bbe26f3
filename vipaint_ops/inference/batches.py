"""Running a sampler over many samples in memory-sized batches, every sample on its own random stream."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior, DiffusionPrior
from ..diffusion.streams import NoiseStreams
from ..errors import InputError
from ..measurement.observation import Observation
from .progress import Callback, Progress
from .results import SampleResult

Chain = Callable[[CountedPrior, Observation, NoiseStreams, Callback], Tensor]
"""Draws one clean latent a stream: ``[streams.rows, *latent_shape]``."""


def sample_in_batches(
    prior: DiffusionPrior,
    observation: Observation,
    chain: Chain,
    num_samples: int,
    batch_size: int,
    *,
    generator: torch.Generator,
    first: int = 0,
    noise: Tensor | None = None,
    population: int = 1,
    callback: Callback | None = None,
) -> SampleResult:
    """Run ``chain`` for samples ``first`` to ``first + num_samples - 1`` and decode what it returns.

    Args:
        noise: standard normal noise that the chains begin from, ``[num_samples, *latent_shape]``; drawn where none
            is given.
        population: samples that are drawn together, k to k + population - 1 for every multiple k of it; those not asked
            for are dropped.

    Raises:
        InputError: fewer than one sample, or a batch of none, is asked for, or ``noise`` has another shape or is not
            for whole populations.
    """
    if num_samples < 1 or batch_size < 1:
        raise InputError(f"num_samples is {num_samples} and batch_size {batch_size}; both must be at least 1")
    if noise is not None and noise.shape != (expected := (num_samples, *prior.latent_shape)):
        raise InputError(f"noise has shape {tuple(noise.shape)}; {num_samples} samples begin from {expected}")
    if noise is not None and (first % population or num_samples % population):
        raise InputError(f"noise is given for {num_samples} samples from {first} on, in populations of {population}")
    counted = CountedPrior(prior)
    observation = observation.to(prior.device, prior.dtype)
    seed = NoiseStreams.seed_from(generator)
    start, end = first // population * population, -(-(first + num_samples) // population) * population
    whole = max(batch_size // population, 1) * population
    batches = [range(i, min(i + whole, end)) for i in range(start, end, whole)]
    latents, images = [], []
    for number, rows in enumerate(batches):

        def report(progress: Progress, number: int = number) -> None:
            if callback is not None:
                done, total = number * progress.total + progress.step, len(batches) * progress.total
                callback(Progress(progress.stage, done, total, progress.terms))

        begin = None if noise is None else noise[rows.start - first : rows.stop - first]
        drawn = chain(counted, observation, NoiseStreams(seed, rows, begin), report)
        latents.append(drawn[max(first - rows.start, 0) : first + num_samples - rows.start])
        with torch.no_grad():
            images.append(counted.decode(latents[-1]))
    return SampleResult(torch.cat(latents), torch.cat(images), counted.evaluations)
