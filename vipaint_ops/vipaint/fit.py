"""Fitting the hierarchical posterior: stochastic gradient descent on the negative bound."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import NoiseStreams
from ..observation import Observation
from ..prior import CountedPrior, DiffusionPrior
from ..progress import Callback, Progress
from .objective import BoundTerms, bound_terms, top_kl
from .posterior import HierarchicalPosterior, check_times, describe
from .start import guided_draws, keypoint_times, matched_posterior


@dataclass(frozen=True)
class FitConfig:
    """Settings of a fit; the defaults are the best ones measured (docs/results.md).

    Attributes:
        keypoints: times T_e > ... > T_s in (0, 1]; none places them at ``keypoint_ratios``.
        keypoint_ratios: noise-to-signal ratios sigma / (alpha data_std) of the keypoints.
        iterations: gradient steps; 0 keeps the guided start.
        samples: Monte-Carlo walks per step.
        mean_rate, log_std_rate, gate_rate: Adam's learning rates; the means' is in units of data_std.
        start_chains, start_steps: the guided run that the parameters start from.
        eta: of the prior's transitions; 1 is exact ancestral sampling.
        bound_every: iterations between evaluations of the whole bound, for the curves; 0 for never.
        checkpointing: recompute activations in the backward pass, to save memory.
    """

    keypoints: tuple[float, ...] | None = None
    keypoint_ratios: tuple[float, ...] = (9.0, 4.0)
    iterations: int = 50
    samples: int = 4
    mean_rate: float = 0.05
    log_std_rate: float = 0.02
    gate_rate: float = 0.03
    start_chains: int = 8
    start_steps: int = 8
    eta: float = 1.0
    bound_every: int = 10
    checkpointing: bool = False

    def __post_init__(self):
        if self.keypoints is not None:
            check_times(self.keypoints)


def fit_posterior(
    prior: DiffusionPrior,
    observation: Observation,
    config: FitConfig | None = None,
    *,
    generator: torch.Generator,
    callback: Callback | None = None,
) -> HierarchicalPosterior:
    """Fit q(z_K) ... q(z_1 | z_2) to the posterior of ``observation`` under ``prior`` (VIPaint, algorithm 1).

    Args:
        prior: frozen; its weights receive no gradient.
        observation: one degraded picture.
        generator: the source of all randomness; the same seed gives the same fit.
        callback: called after every iteration with the loss terms in nats.

    Returns:
        The posterior, with ``history`` (one dictionary an iteration) and ``evaluations``.

    Raises:
        InputError: keypoints are out of order.
    """
    config = config or FitConfig()
    counted = CountedPrior(prior, config.checkpointing)
    observation = observation.to(prior.device, prior.dtype)
    seed = NoiseStreams.seed_from(generator)
    times = config.keypoints or keypoint_times(prior.schedule, prior.data_std, config.keypoint_ratios)
    start_streams = NoiseStreams(seed, range(config.start_chains))
    draws = guided_draws(counted, observation, times[-1], config.start_chains, config.start_steps, start_streams)
    posterior = matched_posterior(counted, times, draws, config.eta, start_streams)
    parameters = [posterior.means, posterior.log_stds, posterior.gates]
    rates = [config.mean_rate * prior.data_std, config.log_std_rate, config.gate_rate]
    optimiser = torch.optim.Adam(
        [{"params": [p], "lr": rate} for p, rate in zip(parameters, rates, strict=True)], betas=(0.9, 0.99)
    )
    streams = NoiseStreams(seed + 1, range(config.samples))
    for iteration in range(config.iterations):
        with torch.enable_grad():
            for parameter in parameters:
                parameter.requires_grad_()
            terms = bound_terms(counted, observation, posterior, config.samples, streams)
            gradients = torch.autograd.grad(terms.loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(False).grad = gradient
        optimiser.step()
        record = _summary(terms)
        if config.bound_every and (iteration + 1) % config.bound_every == 0:
            top = top_kl(counted, posterior, config.samples, streams).mean().item()
            record |= {"top_kl": top, "bound": -(record["likelihood"] + record["transitions"] + top)}
        posterior.history.append(record)
        if callback is not None:
            callback(Progress("fit", iteration + 1, config.iterations, record))
    posterior.means, posterior.log_stds, posterior.gates = (p.detach() for p in parameters)
    posterior.metadata = describe(prior) | {"iterations": str(config.iterations), "noise_std": str(observation.noise_std)}
    posterior.evaluations = counted.evaluations
    return posterior


def _summary(terms: BoundTerms) -> dict[str, float]:
    def mean(x: Tensor) -> float:
        return x.detach().mean().item()

    return {
        "loss": mean(terms.loss),
        "likelihood": mean(terms.likelihood),
        "transitions": mean(terms.transitions),
        "top": mean(terms.top_surrogate),
    }
