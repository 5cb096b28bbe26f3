"""The bound along a fit on an image-like Gaussian prior, and its exact ceiling.

    python -m benchmarks.bound                  # seeds 100 to 107, the figures of docs/record.md
    python -m benchmarks.bound --seeds 2        # a quick look

The bound is measured every ten iterations, always with the same random walks. The ceiling is the log-evidence of the
chain that defines the bound, in closed form. The report also gives ln p(y) of the prior itself.
"""

from __future__ import annotations

from itertools import pairwise, product

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.problems import DOUBLE, NOISE_STD, SCHEDULES, inpainting_problem, power_law_prior
from benchmarks.report import Report, arguments, interval
from vipaint_ops import FitConfig, HierarchicalPosterior, Observation, fit_posterior
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.diffusion.schedule import reverse_mean
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.inference.corrections import clean_variance
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.vipaint.objective import bound_terms, top_kl

ITERATIONS = range(0, 51, 10)
WALKS = 256


def negative_terms(
    prior: GaussianMixturePrior, observation: Observation, posterior: HierarchicalPosterior
) -> list[float]:
    """Likelihood, transitions and top KL of the negative bound, in nats, from :data:`WALKS` fixed walks."""
    counted, streams = CountedPrior(prior), NoiseStreams(0, range(WALKS))
    with torch.no_grad():
        terms = bound_terms(counted, observation, posterior, streams)
        top = top_kl(counted, posterior, streams)
    return [value.mean().item() for value in (terms.likelihood, terms.transitions, top)]


def chain_log_evidence(prior: GaussianMixturePrior, observation: Observation, times: tuple[float, ...]) -> float:
    """ln of the integral of p(z_K) prod p(z_i | z_{i+1}) p(y | z_1), in nats, for a zero-mean Gaussian prior.

    All maps are linear and symmetric functions of the prior's covariance, so z_1 is Gaussian with a known covariance.
    """
    clean = prior.covariances[0]
    identity = torch.eye(len(clean), dtype=DOUBLE)

    def denoiser(level) -> Tensor:
        return level.alpha * clean @ torch.linalg.inv(level.alpha**2 * clean + level.sigma**2 * identity)

    level = prior.schedule.level(times[0])
    covariance = level.alpha**2 * clean + level.sigma**2 * identity
    for t in times[1:]:
        above, level = level, prior.schedule.level(t)
        step, variance = reverse_mean(identity, denoiser(above), level, above)
        covariance = step @ covariance @ step.T + variance * identity
    observed = observation.observed.flatten()
    predicted = denoiser(level) @ covariance @ denoiser(level).T
    noise = NOISE_STD**2 + clean_variance(level, prior.data_std)
    marginal = (predicted + noise * identity)[observed][:, observed]
    law = torch.distributions.MultivariateNormal(torch.zeros(len(marginal), dtype=DOUBLE), marginal)
    return law.log_prob(observation.y.flatten()[observed]).item()


def measure(schedule: str, mask: str, seed: int) -> tuple[list[list[float]], tuple[float, float]]:
    """Terms at each of :data:`ITERATIONS`, and the log-evidences of the chain and of the prior."""
    prior = power_law_prior(SCHEDULES[schedule])
    observation, exact = inpainting_problem(prior, mask, NOISE_STD, torch.Generator().manual_seed(seed))
    terms = []
    for iterations in ITERATIONS:
        config = FitConfig(iterations=iterations, bound_every=0)
        posterior = fit_posterior(prior, observation, config, generator=torch.Generator().manual_seed(seed + 10**6))
        terms.append(negative_terms(prior, observation, posterior))
    return terms, (chain_log_evidence(prior, observation, posterior.times), exact.log_evidence)


def main() -> None:
    options = arguments(__doc__, 100, 8)
    report = Report("bound", "The bound along a fit, image-like Gaussian prior, in nats", options.seeds, options.out)
    problems = list(product(options.seeds, SCHEDULES, ("half", "box")))
    runs = [measure(schedule, mask, seed) for seed, schedule, mask in tqdm(problems)]
    by_seed = (len(options.seeds), -1)
    terms = torch.tensor([run[0] for run in runs], dtype=DOUBLE).unflatten(0, by_seed).mean(1)
    ceilings = torch.tensor([run[1] for run in runs], dtype=DOUBLE).unflatten(0, by_seed).mean(1)
    bounds = -terms.sum(-1)
    gaps = (ceilings[:, :1] - bounds).T.tolist()
    means = torch.cat([terms, bounds[..., None]], -1).mean(0).tolist()
    report.say(f"Two schedules, half and box masks; {WALKS} walks for each value, the same ones at every row.")
    report.table(
        ["iterations", "-ln p(y given z_1)", "transitions", "top KL", "bound", "ceiling - bound"],
        [[i, *(f"{v:.2f}" for v in m), interval(g)] for i, m, g in zip(ITERATIONS, means, gaps, strict=True)],
    )
    chain, evidence = ceilings.mean(0).tolist()
    report.say(f"Ceiling, the chain's log-evidence: {chain:.2f}; ln p(y) of the prior: {evidence:.2f}.")
    rises = [interval(rise) for rise in bounds.diff(dim=1).T.tolist()]
    stretches = zip(pairwise(ITERATIONS), rises, strict=True)
    report.say(
        "\n".join(f"- iterations {a} to {b}: the bound rises by {rise} on average" for (a, b), rise in stretches)
    )
    raised = all(rise.mean > 0 for rise in rises)
    report.say(f"Every stretch of ten iterations raises the bound on average: {'yes' if raised else 'no'}.")
    draw(report, terms.mean(0), chain)
    report.write(dict(zip(map(str, problems), runs, strict=True)))


def draw(report: Report, terms: Tensor, chain: float) -> None:
    whole, parts = report.panels(2)
    whole.plot(ITERATIONS, -terms.sum(-1), marker="o", label="bound")
    whole.axhline(chain, color="grey", linestyle="--", label="log-evidence of the chain")
    for values, name in zip(terms.T, ("likelihood", "transitions", "top KL"), strict=True):
        parts.plot(ITERATIONS, values - values[0], marker="o", label=name)
    for axes, title in ((whole, "mean bound, nats"), (parts, "change of the negative bound's terms, nats")):
        axes.set_title(title, loc="left", fontsize=9)
        axes.set_xlabel("iterations")
        axes.legend(fontsize=8, frameon=False)


if __name__ == "__main__":
    main()
