"""Fitting the hierarchical posterior: stochastic gradient descent on the negative bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError
from ..noise import NoiseStreams
from ..observation import Observation
from ..perceptual import Distance, PerceptualTerm, check_perceptual
from ..prior import CountedPrior, DiffusionPrior
from ..progress import Callback, Progress
from .objective import BoundTerms, bound_terms, top_kl
from .posterior import HierarchicalPosterior, check_times, describe
from .published_v1 import PublishedV1
from .published_v2 import KEYPOINT_RATIOS, PublishedV2
from .start import guided_draws, keypoint_times, matched_posterior, weighed_draws


@dataclass(frozen=True)
class FitConfig:
    """Settings of a fit; the defaults are the best ones measured (docs/results.md).

    :meth:`published_v1` and :meth:`published_v2` are the two published settings (docs/published.md).

    Attributes:
        keypoints: times T_e > ... > T_s in (0, 1]; none places them at ``keypoint_ratios``.
        keypoint_ratios: noise-to-signal ratios sigma / (alpha data_std) of the keypoints.
        iterations: gradient steps; 0 keeps the guided start.
        samples: Monte-Carlo walks per step.
        mean_rate, log_std_rate, gate_rate: Adam's learning rates; the means' is in units of data_std.
        betas: Adam's.
        rate_decay: factor on all learning rates after every ten iterations.
        start_chains, start_steps: the guided run that the parameters start from, where the objective is the bound.
        components: how many posteriors are fitted at once, each around a draw of its own; their mixture is sampled. See
            :meth:`several`.
        eta: of the prior's transitions; 1 is exact ancestral sampling.
        objective: what is descended, and from where: a name in :data:`RECIPES`.
        bound_every: iterations between evaluations of the whole bound, for the curves, where the objective is the
            bound; 0 for never.
        checkpointing: recompute activations in the backward pass, to save memory.
        perceptual_weight: of a perceptual distance added to the likelihood's term (the published fits': 100 in v1,
            which adds it for inpainting, 0 in v2); 0 for none.
        perceptual: the distance; none for LPIPS from the package lpips.
    """

    keypoints: tuple[float, ...] | None = None
    keypoint_ratios: tuple[float, ...] = (13.0, 8.0)
    iterations: int = 50
    samples: int = 4
    mean_rate: float = 0.05
    log_std_rate: float = 0.02
    gate_rate: float = 0.03
    betas: tuple[float, float] = (0.9, 0.99)
    rate_decay: float = 1.0
    start_chains: int = 8
    start_steps: int = 8
    components: int = 1
    eta: float = 1.0
    objective: str = "bound"
    bound_every: int = 10
    checkpointing: bool = False
    perceptual_weight: float = 0.0
    perceptual: Distance | None = None

    def __post_init__(self):
        if self.keypoints is not None:
            check_times(self.keypoints)
        ratios = self.keypoint_ratios
        if not ratios or ratios[-1] <= 0 or any(a <= b for a, b in pairwise(ratios)):
            raise InputError(f"keypoint_ratios are {list(ratios)}; give one or more positive ones, decreasing")
        least_of = {"iterations": 0, "samples": 1, "start_chains": 2, "start_steps": 1, "components": 1}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 < self.eta <= 1:
            raise InputError(f"eta is {self.eta}; it must be above 0 and at most 1")
        if self.objective not in RECIPES:
            raise InputError(f"objective is {self.objective!r}; choose one of {', '.join(RECIPES)}")
        if self.components > 1 and self.objective != "bound":
            raise InputError(f"components is {self.components}; the setting {self.objective} fits one posterior: set 1")
        check_perceptual(self.perceptual_weight, self.perceptual)

    @classmethod
    def several(cls, components: int = 64) -> FitConfig:
        """Posteriors around finished draws, weighed by y where measurements are few (docs/method.md, section 8).

        They lie where a draw is told from its like, and gain nothing from iterations (docs/results.md).
        """
        return cls(components=components, keypoint_ratios=(0.4,), iterations=0, start_steps=30)

    @classmethod
    def fast(cls) -> FitConfig:
        """Half the iterations with half the walks, from a shorter start."""
        return cls(iterations=25, samples=2, start_chains=4, start_steps=6)

    @classmethod
    def published_v1(cls) -> FitConfig:
        """The first published setting: ImageNet-256 inpainting with two keypoints (see published_v1.py).

        Its eta multiplies a variance, so the standard deviation has its root; its rate of 0.001 is for ln tau^2.
        """
        return cls(
            keypoints=(0.55, 0.4), iterations=50, samples=5, mean_rate=0.1, log_std_rate=0.0005, gate_rate=0.01,
            rate_decay=0.99, eta=0.2**0.5, objective="published_v1",
        )  # fmt: skip

    @classmethod
    def published_v2(cls) -> FitConfig:
        """The second published setting: SD3.5-large-turbo with two keypoints (see published_v2.py).

        ``log_std_rate`` is the rate of its raw tau.
        """
        return cls(
            keypoint_ratios=KEYPOINT_RATIOS, iterations=50, samples=1, mean_rate=0.2, log_std_rate=0.2, gate_rate=0.2,
            betas=(0.9, 0.999), objective="published_v2",
        )  # fmt: skip


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
