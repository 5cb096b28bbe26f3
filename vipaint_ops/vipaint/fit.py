"""Fitting the hierarchical posterior: stochastic gradient descent on the negative bound."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior, DiffusionPrior
from ..diffusion.streams import NoiseStreams
from ..inference.perceptual import PerceptualTerm
from ..inference.progress import Callback, Progress
from ..measurement.observation import Observation
from .config import FitConfig
from .objective import BoundTerms, bound_terms, top_kl
from .posterior import HierarchicalPosterior, describe
from .published.v1 import PublishedV1
from .published.v2 import PublishedV2
from .start import guided_draws, keypoint_times, matched_posterior, weighed_draws


class Recipe(Protocol):
    """What a fit descends, and from where, for one prior and observation."""

    def start(self, times: tuple[float, ...], seed: int, callback: Callback | None) -> HierarchicalPosterior:
        """The posterior before the first iteration; a start that takes long reports its steps."""
        ...

    def loss(self, posterior: HierarchicalPosterior, streams: NoiseStreams) -> BoundTerms:
        """The terms to descend, over one walk down the hierarchy a stream."""
        ...


class _Bound:
    """The library's own: from a guided run down the negative bound."""

    def __init__(self, prior: DiffusionPrior, counted: CountedPrior, observation: Observation, config: FitConfig):
        self._counted, self._observation, self._config = counted, observation, config
        self._perceptual = PerceptualTerm(observation, config.perceptual_weight, config.perceptual)

    def start(self, times: tuple[float, ...], seed: int, callback: Callback | None) -> HierarchicalPosterior:
        def report(progress: Progress) -> None:
            if callback is not None:
                callback(Progress("start", progress.step, progress.total))

        config, counted = self._config, self._counted
        if config.components > 1:
            draws, made = weighed_draws(
                counted, self._observation, config.components, config.start_steps, config.start_chains, seed, report
            )
            streams = NoiseStreams(seed, range(config.components, config.components + config.start_chains))
            around = [draw.expand(config.start_chains, *draw.shape) for draw in draws]
            posterior = HierarchicalPosterior.joined(
                [matched_posterior(counted, times, alike, config.eta, streams) for alike in around]
            )
            posterior.metadata["start"] = made
            return posterior
        streams = NoiseStreams(seed, range(config.start_chains))
        draws = guided_draws(counted, self._observation, times[-1], config.start_steps, streams, report)
        return matched_posterior(counted, times, draws, config.eta, streams)

    def loss(self, posterior: HierarchicalPosterior, streams: NoiseStreams) -> BoundTerms:
        return bound_terms(self._counted, self._observation, posterior, streams.rows, streams, self._perceptual)


RECIPES: dict[str, Callable[[DiffusionPrior, CountedPrior, Observation, FitConfig], Recipe]] = {
    "bound": _Bound,
    "published_v1": PublishedV1,
    "published_v2": PublishedV2,
}
"""Objectives by name."""


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
        callback: called after every step of the guided start (stage "start"), then after every iteration (stage "fit")
            with the loss terms, in nats where the objective is the bound.

    Returns:
        The posterior, with ``history`` (one dictionary an iteration) and ``evaluations``.

    Raises:
        InputError: the objective is not defined for the observation.
    """
    # Sampling draws its streams from the seed itself, so that a fit and a run of the same seed share no noise.
    config = config or FitConfig()
    if config.objective != "bound":
        observation.require_gaussian(f"the setting {config.objective}")
    counted = CountedPrior(prior, config.checkpointing)
    observation = observation.to(prior.device, prior.dtype)
    seed = NoiseStreams.seed_from(generator)
    times = config.keypoints or keypoint_times(prior.schedule, prior.data_std, config.keypoint_ratios)
    recipe = RECIPES[config.objective](prior, counted, observation, config)
    start = recipe.start(times, seed + 1, callback)
    parts, total = start.parts(), start.components * config.iterations
    walks, curves = (NoiseStreams(seed + i, range(config.samples)) for i in (2, 3))
    for number, part in enumerate(parts):

        def report(progress: Progress, done: int = number * config.iterations) -> None:
            if callback is not None:
                callback(Progress("fit", done + progress.step, total, progress.terms))

        _descend(recipe, part, counted, config, walks, curves, report)
    posterior = HierarchicalPosterior.joined(parts)
    records = zip(*(part.history for part in parts), strict=True)
    posterior.history = [{name: fmean(r[name] for r in same) for name in same[0]} for same in records]
    fitted = {"iterations": str(config.iterations), "noise_std": str(observation.noise_std)}
    posterior.metadata = describe(prior) | start.metadata | fitted
    posterior.evaluations = counted.evaluations
    return posterior


def _descend(
    recipe: Recipe, posterior: HierarchicalPosterior, counted: CountedPrior, config: FitConfig, walks: NoiseStreams,
    curves: NoiseStreams, callback: Callback,
) -> None:  # fmt: skip
    """Adam from where ``posterior`` is; its history is written, its tensors end up detached."""
    parameters = [posterior.means, posterior.log_stds, posterior.gates]
    rates = [config.mean_rate * counted.data_std, config.log_std_rate, config.gate_rate]
    optimiser = torch.optim.Adam(
        [{"params": [p], "lr": rate} for p, rate in zip(parameters, rates, strict=True)], betas=config.betas
    )
    decay = torch.optim.lr_scheduler.StepLR(optimiser, step_size=10, gamma=config.rate_decay)
    for iteration in range(config.iterations):
        with torch.enable_grad():
            for parameter in parameters:
                parameter.requires_grad_()
            terms = recipe.loss(posterior, walks)
            gradients = torch.autograd.grad(terms.loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(False).grad = gradient
        optimiser.step()
        decay.step()
        record = _summary(terms)
        if config.objective == "bound" and config.bound_every and (iteration + 1) % config.bound_every == 0:
            top = top_kl(counted, posterior, config.samples, curves).mean().item()
            record |= {"top_kl": top, "bound": -(record["likelihood"] + record["transitions"] + top)}
        posterior.history.append(record)
        callback(Progress("fit", iteration + 1, config.iterations, record))
    posterior.means, posterior.log_stds, posterior.gates = (p.detach() for p in parameters)


def _summary(terms: BoundTerms) -> dict[str, float]:
    def mean(x: Tensor) -> float:
        return x.detach().mean().item()

    return {
        "loss": mean(terms.loss),
        "likelihood": mean(terms.likelihood),
        "transitions": mean(terms.transitions),
        "top": mean(terms.top_surrogate),
    }
