"""Results of a run: samples, their cost, and a summary of the particles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..diffusion.prior import Evaluations


@dataclass(frozen=True)
class Populations:
    """Summary of populations of particles.

    Attributes:
        size: particles of a population. They share ancestors; populations do not.
        effective: smallest effective sample size of each population over the run, before resampling, as a share of
            ``size``; ``[populations]``.
        tempering: smallest exponent applied to each population's weights, 1 for none; ``[populations]``. With many
            measurements weights degenerate. Below 1 the samples follow the guided chain more than the posterior.
        log_evidence: estimates of ln p(y) in nats, ``[populations]``; NaN where weights were tempered, are known up to
            a constant only, or started from draws of p(z | y).
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


class Drawn(NamedTuple):
    """Clean latents of a chain, ``[batch, *latent_shape]``, and the populations they were drawn in, if any."""

    latents: Tensor
    populations: Populations | None = None


@dataclass(frozen=True)
class SampleResult:
    """Samples of a restoration.

    Attributes:
        latents: ``[n, *latent_shape]``.
        images: ``[n, channels, height, width]``, about [-1, 1], as decoded (not clamped, not composited), on the CPU.
        evaluations: rows through the networks.
        populations: of particles, where samples were drawn as such.
    """

    latents: Tensor
    images: Tensor
    evaluations: Evaluations
    populations: Populations | None = None
