"""What a run returns: samples with their cost, and a summary of the particles they were drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import Evaluations


@dataclass(frozen=True)
class Populations:
    """What became of populations of particles.

    Attributes:
        size: particles of a population; they share ancestors, populations do not.
        effective: the smallest effective sample size of each population over the run, before it was drawn again, as a
            share of ``size``; ``[populations]``.
        tempering: the smallest exponent that each population's weights had to be raised to, 1 for none:
            ``[populations]``. With many measurements weights degenerate, and below 1 the samples follow the guided
            chain more than the posterior.
        log_evidence: estimates of ln p(y) in nats, ``[populations]``; NaN where weights were tempered, are known
            only up to a constant, or began from draws that knew of y.
    """

    size: int
    effective: Tensor
    tempering: Tensor
    log_evidence: Tensor

    def __str__(self) -> str:
        effective = f"least effective sample size {self.effective.mean():.0%}"
        text = f"{len(self.effective)} x {self.size} particles, {effective}"
        if self.tempering.min() < 1:
            return (
                f"{text}, after the weights had to be raised to the power {self.tempering.min():.2g}: too many "
                "measurements for weights, so that the samples follow the guided chain more than the posterior"
            )
        return text if self.log_evidence.isnan().any() else f"{text}, ln p(y) = {self.evidence():.2f} nats"

    def evidence(self) -> float:
        """ln of the mean of p(y) over populations: unbiased before the logarithm."""
        return (self.log_evidence.logsumexp(0) - math.log(len(self.log_evidence))).item()

    @staticmethod
    def joined(parts: list[Populations]) -> Populations:
        """The populations of several batches."""
        fields = ([getattr(p, name) for p in parts] for name in ("effective", "tempering", "log_evidence"))
        return Populations(parts[0].size, *map(torch.cat, fields))


@dataclass(frozen=True)
class SampleResult:
    """Samples of a restoration.

    Attributes:
        latents: ``[n, *latent_shape]``.
        images: ``[n, channels, height, width]``, about [-1, 1], as decoded: neither clamped nor composited.
        evaluations: what the networks were asked for, in rows.
        populations: what became of particles, where samples were drawn as such.
    """

    latents: Tensor
    images: Tensor
    evaluations: Evaluations
    populations: Populations | None = None
