"""The compared methods, at their defaults or at a common number of network evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vipaint_ops import (
    PRESETS,
    FitConfig,
    Observation,
    RefineConfig,
    SampleResult,
    fit_posterior,
    sample_posterior,
    samplers,
)
from vipaint_ops.diffusion.prior import DiffusionPrior, Evaluations
from vipaint_ops.inference.corrections import Kalman

TRIAL_STEPS = 20
"""Steps of the first trial run, which measures the cost of a step. The second one corrects the estimate."""


def costs(evaluations: Evaluations, count: int) -> dict[str, float]:
    """Rows through each network for one of ``count`` samples, forward and backward together."""
    return {
        "evaluations": evaluations.denoiser / count,
        "decoder": (evaluations.decoder_forward + evaluations.decoder_backward) / count,
        "encoder": (evaluations.encoder_forward + evaluations.encoder_backward) / count,
    }


@dataclass(frozen=True)
class VIPaint:
    """A fit, shared by all samples, and its refinement."""

    fit: FitConfig
    refine: RefineConfig = field(default_factory=RefineConfig)

    def __call__(
        self, prior: DiffusionPrior, observation: Observation, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Evaluations]:
        """Images and their network evaluations."""
        posterior = fit_posterior(prior, observation, self.fit, generator=generator)
        result = sample_posterior(prior, observation, posterior, count, self.refine, generator=generator)
        return result.images, posterior.evaluations + result.evaluations

    def in_batches(self, size: int) -> VIPaint:
        """A copy with ``size`` samples a batch."""
        return replace(self, refine=replace(self.refine, batch_size=size))


@dataclass(frozen=True)
class Sampler:
    """One of the library's samplers with its configuration."""

    function: Callable[..., SampleResult]
    config: Any

    def __call__(
        self, prior: DiffusionPrior, observation: Observation, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Evaluations]:
        """Images and their network evaluations."""
        result = self.function(prior, observation, count, self.config, generator=generator)
        return result.images, result.evaluations

    def in_batches(self, size: int) -> Sampler:
        """A copy with ``size`` samples a batch."""
        return replace(self, config=replace(self.config, batch_size=size))

    def within(
        self,
        budget: float,
        prior: DiffusionPrior,
        observation: Observation,
        cost: Callable[[Evaluations], float] = lambda spent: spent.denoiser,
    ) -> Sampler:
        """This sampler with as many steps as ``budget`` allows a sample, approximately.

        Args:
            cost: of the evaluations of a sample, in the unit of the budget; denoiser evaluations if not given.
        """
        steps = TRIAL_STEPS
        for _ in range(3):
            trial = replace(self, config=replace(self.config, steps=steps))
            _, spent = trial(prior, observation, 1, torch.Generator().manual_seed(0))
            steps = max(1, round(steps * budget / cost(spent)))
        return replace(self, config=replace(self.config, steps=steps))


def preset(name: str) -> VIPaint:
    """A preset of the library."""
    return VIPaint(PRESETS[name].fit, PRESETS[name].refine)


EXACT = Kalman(isotropic_below=0.0, spread_iterations=2)
"""With the denoiser's covariance at every step, for the decoder's own Jacobian."""
METHODS: dict[str, VIPaint | Sampler] = {
    "VIPaint": preset("balanced"),
    "VIPaint, fast": preset("fast"),
    "VIPaint, quality": preset("quality"),
    "VIPaint, layouts": preset("layouts"),
    "VIPaint, exact decoder": VIPaint(
        FitConfig(
            iterations=50,
            bound_every=0,
            start_chains=8,
            start_steps=8,
            guidance=EXACT,
            decoder="exact",
        ),
        RefineConfig(guidance=EXACT, attempts=3, decoder="exact"),
    ),
    "Kalman": Sampler(samplers.kalman, samplers.KalmanConfig()),
    "CoPaint": Sampler(samplers.copaint, samplers.CoPaintConfig()),
    "CoPaint-Fast": Sampler(samplers.copaint, samplers.CoPaintConfig.fast()),
    "CoPaint-TT": Sampler(samplers.copaint, samplers.CoPaintConfig.time_travel()),
    "DPS": Sampler(samplers.dps, samplers.DPSConfig()),
    "PSLD": Sampler(samplers.psld, samplers.PSLDConfig()),
    "ReSample": Sampler(samplers.resample, samplers.ReSampleConfig.inpainting()),
    "RED-diff": Sampler(samplers.red_diff, samplers.RedDiffConfig()),
    "RED-diff V": Sampler(samplers.red_diff_v, samplers.RedDiffVConfig()),
    "RePaint": Sampler(samplers.repaint, samplers.RePaintConfig()),
    "Blended": Sampler(samplers.blended, samplers.BlendedConfig()),
    "DDNM": Sampler(samplers.ddnm, samplers.DDNMConfig(noisy=False)),
    "DDNM+": Sampler(samplers.ddnm, samplers.DDNMConfig()),
    "DInG": Sampler(samplers.ding, samplers.DInGConfig()),
    "LanPaint": Sampler(samplers.lanpaint, samplers.LanPaintConfig()),
    "LATINO": Sampler(samplers.latino, samplers.LATINOConfig()),
    "LATINO, 8 steps": Sampler(samplers.latino, samplers.LATINOConfig.consistency_model()),
    "PiGDM": Sampler(samplers.pigdm, samplers.PiGDMConfig()),
}
"""All methods, with their names in the papers."""
VARIANTS = {
    f"VIPaint, {name}": VIPaint(FitConfig(), RefineConfig(guidance=settings))
    for name, settings in (
        ("12 solver iterations", Kalman(linear_iterations=12)),
        ("linear decoder only", Kalman(exact_below=0.0)),
        ("denoiser's covariance everywhere", Kalman(isotropic_below=0.0)),
        ("1 solver iteration", Kalman(linear_iterations=1)),
        ("1 spread iteration", Kalman(spread_iterations=1)),
        *((f"spread_eta {eta}", Kalman(spread_eta=eta)) for eta in (1.0, 1.3, 1.7)),
    )
}
"""Refinement with other Kalman settings: controls of the defaults."""
