"""Fitting the hierarchical posterior: stochastic gradient descent on the negative bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from statistics import fmean

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior, DiffusionPrior
from ..diffusion.streams import NoiseStreams
from ..inference.decoder import linear_decoder
from ..inference.linearised import require_gradients
from ..inference.perceptual import PerceptualTerm
from ..inference.progress import Callback, Progress
from ..measurement.observation import Observation
from .config import PUBLISHED, FitConfig
from .layouts import Layouts
from .objective import BoundTerms, bound_terms, top_kl
from .posterior import HierarchicalPosterior, describe
from .published.v1 import PublishedV1
from .published.v2 import PublishedV2
from .recipe import Recipe
from .start import guided_draws, keypoint_times, matched_posterior, weighed_draws


class Bound(Recipe):
    """The library's own: from a guided run down the negative bound."""

    def __init__(self, prior: CountedPrior, observation: Observation, config: FitConfig):
        self._prior, self._observation, self._config = prior, observation, config
        self._perceptual = PerceptualTerm(observation, config.perceptual_weight, config.perceptual)

    def start(self, times: tuple[float, ...], seed: int, callback: Callback) -> HierarchicalPosterior:
        """Moments of guided draws; of several components each around its own finished draw."""

        def report(progress: Progress) -> None:
            callback(Progress("start", progress.step, progress.total))

        prior, observation, config = self._prior, self._observation, self._config
        count, chains = config.components, config.start_chains
        if count == 1:
            streams = NoiseStreams(seed, range(chains))
            draws = guided_draws(prior, observation, config, times[-1], streams, report)
            return matched_posterior(prior, times, draws, config.eta, streams)
        draws, made = weighed_draws(prior, observation, config, seed, report)
        streams = NoiseStreams(seed, range(count, count + chains))
        around = [draw.expand(chains, *draw.shape) for draw in draws]
        parts = [matched_posterior(prior, times, alike, config.eta, streams) for alike in around]
        q = HierarchicalPosterior.joined(parts)
        q.metadata["start"] = made
        return q

    def loss(self, q: HierarchicalPosterior, streams: NoiseStreams) -> BoundTerms:
        """The terms of the negative bound, in nats."""
        return bound_terms(self._prior, self._observation, q, streams, self._perceptual)


RECIPES: dict[str, Callable[[CountedPrior, Observation, FitConfig], Recipe]] = {
    "bound": Bound,
    "layouts": Layouts,
    "published_v1": PublishedV1,
    "published_v2": PublishedV2,
}
"""Recipes by the name of their objective."""


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
        InputError: the objective is not defined for the observation, or gradients are switched off.
    """
    # Sampling draws its streams from the seed itself, so that a fit and a run of the same seed share no noise.
    config, report = config or FitConfig(), callback or (lambda progress: None)
    if config.objective != "bound":
        observation.require_gaussian(f"the setting {config.objective}")
    require_gradients(observation)
    record = describe(prior) | {"observation": observation.digest}
    counted = CountedPrior(prior, config.checkpointing)
    observation = observation.to(prior.device, prior.dtype)
    if config.decoder == "linear":
        counted.linear = linear_decoder(counted)
    seed = NoiseStreams.seed_from(generator)
    times = config.keypoints or keypoint_times(prior.schedule, prior.data_std, config.keypoint_ratios)
    recipe = RECIPES[config.objective](counted, observation, config)
    start = recipe.start(times, seed + 1, report)
    parts = [start] if recipe.together else start.parts()
    total = len(parts) * config.iterations
    count = config.samples * parts[0].components
    walks, curves = (NoiseStreams(seed + i, range(count)) for i in (2, 3))
    for number, part in enumerate(parts):

        def report_part(progress: Progress, done: int = number * config.iterations) -> None:
            report(Progress("fit", done + progress.step, total, progress.terms))

        _descend(recipe, part, counted, config, walks, curves, report_part)
    q = recipe.finish(HierarchicalPosterior.joined(parts), seed + 4)
    records = zip(*(part.history for part in parts), strict=True)
    q.history = [{name: fmean(r[name] for r in same) for name in same[0]} for same in records]
    fitted = {"iterations": str(config.iterations), "noise_std": str(observation.noise_std)}
    q.metadata = record | start.metadata | q.metadata | fitted
    q.evaluations = counted.evaluations
    return q


def _descend(
    recipe: Recipe,
    q: HierarchicalPosterior,
    prior: CountedPrior,
    config: FitConfig,
    walks: NoiseStreams,
    curves: NoiseStreams,
    callback: Callback,
) -> None:
    """Adam from the parameters of ``q``, which end up detached; its history is written."""
    parameters = [q.means, q.log_stds, q.gates]
    rates = [config.mean_rate * prior.data_std, config.log_std_rate, config.gate_rate]
    optimiser = torch.optim.Adam(
        [{"params": [p], "lr": rate} for p, rate in zip(parameters, rates, strict=True)], betas=config.betas
    )
    decay = torch.optim.lr_scheduler.StepLR(optimiser, step_size=10, gamma=config.rate_decay)
    # The published losses share random numbers between their walks.
    batches = [walks] if config.objective in PUBLISHED else walks.batches(config.batch_size)
    for iteration in range(1, config.iterations + 1):
        optimiser.zero_grad()
        terms = _differentiate(recipe, q, parameters, batches)
        optimiser.step()
        decay.step()
        record = _summary(terms)
        if config.objective == "bound" and config.bound_every and iteration % config.bound_every == 0:
            top = top_kl(prior, q, curves).mean().item()
            record |= {"top_kl": top, "bound": -(record["likelihood"] + record["transitions"] + top)}
        q.history.append(record)
        callback(Progress("fit", iteration, config.iterations, record))
    q.means, q.log_stds, q.gates = (p.detach() for p in parameters)


def _differentiate(
    recipe: Recipe, q: HierarchicalPosterior, parameters: list[Tensor], batches: list[NoiseStreams]
) -> BoundTerms:
    """Terms of the loss over all walks, detached; its gradient is added to that of the parameters, batch by batch."""
    found, walks = [], sum(batch.rows for batch in batches)
    for batch in batches:
        with torch.enable_grad():
            for parameter in parameters:
                parameter.requires_grad_()
            terms = recipe.loss(q, batch)
            (batch.rows / walks * terms.loss).backward(inputs=parameters)
        found.append([getattr(terms, field.name).detach() for field in fields(terms)])
    for parameter in parameters:
        parameter.requires_grad_(False)
    return BoundTerms(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _summary(terms: BoundTerms) -> dict[str, float]:
    def mean(x: Tensor) -> float:
        return x.mean().item()

    return {
        "loss": mean(terms.loss),
        "likelihood": mean(terms.likelihood),
        "transitions": mean(terms.transitions),
        "top": mean(terms.top_surrogate),
    }
