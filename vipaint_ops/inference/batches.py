"""Running a chain over many samples in batches that fit into memory, each sample on its own random stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior, DiffusionPrior
from ..diffusion.streams import NoiseStreams
from ..errors import InputError
from ..measurement.observation import Observation
from .decoder import linear_decoder
from .progress import Callback, Progress
from .results import Drawn, Populations, SampleResult

Chain = Callable[[CountedPrior, Observation, NoiseStreams, Callback], Tensor | Drawn]
"""Draws one clean latent a stream: ``[streams.rows, *latent_shape]``."""


@dataclass(frozen=True)
class Request:
    """The samples of a run: ``first`` to ``first + count - 1``, in batches.

    Attributes:
        count: number of samples.
        batch_size: samples computed together.
        first: number of the first sample.
        noise: standard normal noise at the start of the chains, ``[count, *latent_shape]``; drawn if not given.
        population: samples that are drawn together, k to k + population - 1 for every multiple k of it. The others of
            a population are dropped.
        decoder: "exact", or "linear" for :func:`~.decoder.linear_decoder` in the place of the decoder's Jacobian.

    Raises:
        InputError: fewer than one sample, a batch of none, or noise that is not for whole populations.
    """

    count: int
    batch_size: int
    first: int = 0
    noise: Tensor | None = None
    population: int = 1
    decoder: str = "exact"

    def __post_init__(self):
        if self.count < 1 or self.batch_size < 1:
            raise InputError(f"num_samples is {self.count} and batch_size {self.batch_size}; both must be at least 1")
        if self.first < 0:
            raise InputError(f"first is {self.first}; it must be at least 0")
        if self.noise is not None and (self.first % self.population or self.count % self.population):
            raise InputError(
                f"noise is given for {self.count} samples from {self.first} on, in populations of {self.population}"
            )

    def batches(self) -> list[range]:
        """The numbers of the samples of each batch, whole populations."""
        size, last = self.population, self.first + self.count
        start, end = self.first // size * size, -(-last // size) * size
        whole = max(self.batch_size // size, 1) * size
        return [range(i, min(i + whole, end)) for i in range(start, end, whole)]

    def wanted(self, rows: range, drawn: Tensor) -> Tensor:
        """The samples of a batch that belong to the request."""
        return drawn[max(self.first - rows.start, 0) : self.first + self.count - rows.start]

    def noise_of(self, rows: range) -> Tensor | None:
        """The given noise of a batch."""
        return None if self.noise is None else self.noise[rows.start - self.first : rows.stop - self.first]


def sample_in_batches(
    prior: DiffusionPrior,
    observation: Observation,
    chain: Chain,
    request: Request,
    *,
    generator: torch.Generator,
    callback: Callback | None = None,
) -> SampleResult:
    """Run ``chain`` for the samples of ``request`` and decode its latents.

    Raises:
        InputError: ``noise`` has the wrong shape.
    """
    if request.noise is not None and request.noise.shape != (expected := (request.count, *prior.latent_shape)):
        raise InputError(
            f"noise has shape {tuple(request.noise.shape)}; the start of {request.count} samples has {expected}"
        )
    counted = CountedPrior(prior)
    observation = observation.to(prior.device, prior.dtype)
    if request.decoder == "linear":
        counted.linear = linear_decoder(counted)
    seed = NoiseStreams.seed_from(generator)
    batches, populations, latents, images = request.batches(), [], [], []
    for number, rows in enumerate(batches):
        streams = NoiseStreams(seed, rows, request.noise_of(rows))
        drawn = chain(counted, observation, streams, among_batches(callback, number, len(batches)))
        if isinstance(drawn, Drawn):
            populations += [drawn.populations] if drawn.populations else []
            drawn = drawn.latents
        latents.append(request.wanted(rows, drawn))
        with torch.no_grad():
            images.append(counted.decode(latents[-1]).cpu())
    summary = Populations.joined(populations) if populations else None
    return SampleResult(torch.cat(latents), torch.cat(images), counted.evaluations, summary)


def among_batches(callback: Callback | None, number: int, batches: int) -> Callback:
    """``callback`` for the batch ``number`` of ``batches``: its steps are counted among those of all."""

    def report(progress: Progress) -> None:
        if callback is not None:
            done, total = number * progress.total + progress.step, batches * progress.total
            callback(Progress(progress.stage, done, total, progress.terms))

    return report
