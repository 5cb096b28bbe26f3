"""The first published setting of VIPaint, as its code ran it (arXiv 2411.18929; ImageNet-256, two keypoints).

Its fit and its refinement are kept apart from the library's own objective, because several of its terms differ from
their names. They are repeated here because the published weights were tuned to them:

- **KL of means.** Every KL has its mean term as s^2 (m - m')^2 / 2 where (m - m')^2 / (2 s^2) is right, a factor s^4:
  1/80 between the keypoints, 1/5000 just above T_e. Means are hardly tied to the prior.
- **Term above T_e.** The prediction of z_e takes sqrt(v) for v / sigma_t (Tweedie); the bridge's variance takes the
  signal ratio of the wrong pair of levels, and is 1 to 13 times too large; z_t is drawn with tau, while the prior's
  bridge uses the nominal sigma_e; the weight counts 1000 single steps, halved, where the grid has 139 longer ones. The
  step that touches T_e and the KL at the noisiest time are missing. It is not a bound on the KL at T_e.
- **Data term.** An L1 distance divided by 2 s^2: neither a Laplace nor a Gaussian likelihood, and a mean over all
  pixels, the hole included, beside KLs that are means over latents. The balance depends on the mask and on the sizes.
- **Two etas.** eta multiplies the variance between keypoints and the standard deviation below T_s.
- **Start.** mu below the top is drawn with alpha already in it, and the law multiplies it by alpha again. The picture
  is encoded with its hole, which the encoder sees as grey.
- **Rates.** In 50 iterations tau moves by at most 2.5 % and the gates stay above 0.989: only the top mean is learned.
- **No noise below T_s.** Given z at T_s a sample is deterministic. The last correction is computed and thrown away.
- **Top of large tau.** sqrt(1 - tau^2) is not a number once tau passes 1. Here it stops short of it.

LPIPS, which both stages add to the data term of inpainting with a weight of 100, is added where the configurations ask
for it (``perceptual_weight``): the library has no perceptual network of its own.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from ...diffusion.prior import CountedPrior
from ...diffusion.schedule import Level, NoiseSchedule, reverse_kernel, reverse_mean, transition
from ...diffusion.streams import NoiseStreams
from ...inference.perceptual import PerceptualTerm
from ...inference.progress import Callback, Progress
from ...measurement.observation import Observation
from ..config import FitConfig, RefineConfig
from ..families import Normal, coupled_alpha
from ..objective import BoundTerms
from ..posterior import HierarchicalPosterior, Keypoint
from ..recipe import Recipe

BETA = 100.0
"""Weight of both KL terms (beta_1 = beta_2; 70 for deblurring)."""
DATA_WEIGHT = 100 / (2 * 0.566**2)
TOP_SPREAD, SPREAD, STD_SCALE, GATE = 0.8, 1.0, 0.7, 5.0
"""Of the start: noise on the top mean and the others, share of the prior's own std, and gamma (4 elsewhere)."""
STEP, STEP_LATENTS = 0.4, 3 * 64**2
"""Step size below T_s for latents of that many elements: the published 2, over the 5 samples its loss was a mean of.

The data term is a mean over pixels, so its gradient falls as the picture grows; the step is scaled to make up for it.
"""
RHO, LAST_TIME, FIRST_TIME, GRID_SIZE = 7.0, 0.999, 0.002, 1000


class PublishedV1(Recipe):
    """Start and loss of the first published setting, for :func:`~vipaint_ops.vipaint.fit.fit_posterior`."""

    def __init__(self, prior: CountedPrior, observation: Observation, config: FitConfig):
        self._prior, self._observation, self._eta = prior, observation, config.eta
        self._perceptual = PerceptualTerm(observation, config.perceptual_weight, config.perceptual)

    def start(self, times: tuple[float, ...], seed: int, callback: Callback | None) -> HierarchicalPosterior:
        """Encoded observation plus noise in place of every mean, nominal stds, gates nearly open."""
        streams, unit = NoiseStreams(seed, range(len(times))), self._prior.data_std
        with torch.no_grad():
            encoded = self._prior.encode(self._observation.operator.adjoint(self._observation.y))
        means = encoded.expand(len(times), *encoded.shape[1:])
        means = means + unit * streams.normal(means)
        noise, log_stds = streams.normal(means), torch.zeros_like(means)
        levels = [self._prior.schedule.level(t) for t in times]
        means[0] += TOP_SPREAD * unit * noise[0]
        log_stds[0] = math.log(levels[0].sigma)
        for k in range(1, len(times)):
            means[k] = levels[k].alpha * means[k] + SPREAD * levels[k].sigma * noise[k]
            log_stds[k] = math.log(STD_SCALE * reverse_kernel(levels[k], levels[k - 1]).variance ** 0.5)
        return HierarchicalPosterior(times, means, log_stds, torch.full_like(means, GATE), self._eta, "coupled")

    def loss(self, q: HierarchicalPosterior, streams: NoiseStreams) -> BoundTerms:
        """The three published terms with their weights, in place of those of the bound; not in nats.

        ``likelihood`` is 100 mean|y - A D(zh)| / (2 0.566^2), ``transitions`` beta times the hierarchical loss and
        ``top_surrogate`` beta times the loss above T_e.
        """
        keypoints = list(q.walk(self._prior, streams))
        bottom = keypoints[-1]
        prediction = self._prior.denoise(bottom.z, bottom.time)
        transitions = bottom.z.new_zeros(streams.rows)
        for k in keypoints[1:]:
            assert k.p_mean is not None
            transitions = transitions + published_kl(Normal(k.q_mean, k.q_log_std), k.p_mean, k.p_variance)
        return BoundTerms(
            likelihood=data_term(self._prior, self._observation, prediction, self._perceptual),
            transitions=BETA * transitions,
            top_surrogate=BETA * self._loss_above(keypoints[0], streams),
        )

    def _loss_above(self, top: Keypoint, streams: NoiseStreams) -> Tensor:
        """One random step above T_e for every draw of z at T_e, ``[batch]``, weighted to stand for 1000 (1 - T_e)."""
        schedule, level, tau = self._prior.schedule, top.level, top.q_log_std.exp()
        noise, uniform = streams.normal(top.z), torch.special.ndtr(streams.normal(top.z.flatten(1)[:, 0]))[0].item()
        times = noisier_times(schedule, level, tau)
        if len(times) < 3:
            return torch.zeros_like(top.z.flatten(1)[:, 0])
        alpha_e, losses = coupled_alpha(level, tau), []
        for row, z in enumerate(top.z):
            place = 2 + int((uniform + row / len(noise)) % 1 * (len(times) - 2))
            t, s = schedule.level(times[place]), schedule.level(times[place - 1])
            a = t.alpha / alpha_e
            z_t = a * z + (t.sigma**2 - (a * tau) ** 2).sqrt() * noise[row]
            clean = self._prior.denoise(z_t[None], times[place])[0]
            a_te, v_te = transition(level, t)
            guess = (z_t - v_te**0.5 * (z_t - t.alpha * clean) / t.sigma) / a_te
            q_mean, q_variance = published_bridge(alpha_e, tau, s, t, z, z_t)
            p_mean, p_variance = published_bridge(torch.full_like(tau, level.alpha), level.sigma, s, t, guess, z_t)
            losses.append(published_kl(Normal(q_mean[None], 0.5 * q_variance.log()), p_mean, p_variance))
        return 1000 * (1 - top.time) / 2 * torch.cat(losses)


def data_term(
    prior: CountedPrior, observation: Observation, prediction: Tensor, perceptual: PerceptualTerm | None = None
) -> Tensor:
    """100 mean|y - A D(z0)| / (2 0.566^2) over all measurements, hidden ones counting as zero; ``[batch]``."""
    picture = prior.decode(prediction)
    distance = DATA_WEIGHT * observation.residual(picture).abs().flatten(1).mean(1)
    return distance if perceptual is None else distance + perceptual(picture)


def published_kl(q: Normal, mean: Tensor, variance: Tensor | float) -> Tensor:
    """The published "KL", a mean over dimensions, ``[batch]``: its mean term is multiplied by the variance of p."""
    ratio = (2 * q.log_std).exp() / variance
    terms = 0.5 * variance * (q.mean - mean) ** 2 + 0.5 * (ratio - ratio.log() - 1)
    return terms.flatten(1).mean(1)


def published_bridge(
    alpha_e: Tensor, sigma_e: Tensor | float, s: Level, t: Level, z_e: Tensor, z_t: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the published q(z_s | z_t, z_e).

    The variance is v_se v_ts / (v_ts + a_se^2 v_se) where a_ts belongs in the place of a_se; the mean inherits it.
    """
    a_se = s.alpha / alpha_e
    v_se = s.sigma**2 - (a_se * sigma_e) ** 2
    a_ts, v_ts = transition(s, t)
    variance = v_se * v_ts / (v_ts + a_se**2 * v_se)
    return variance * (a_se / v_se * z_e + a_ts / v_ts * z_t), variance


def noisier_times(schedule: NoiseSchedule, level: Level, tau: Tensor) -> list[float]:
    """The times of the published grid (EDM, eq. 5, with rho = 7) that are noisier than every tau and than T_e."""
    low, high = FIRST_TIME ** (1 / RHO), LAST_TIME ** (1 / RHO)
    grid = torch.linspace(low, high, GRID_SIZE, dtype=torch.float64) ** RHO
    ratio = max((tau / coupled_alpha(level, tau)).max().item(), level.sigma / level.alpha)
    return grid[schedule.sigma(grid) > ratio * schedule.alpha(grid)].tolist()


def refine(
    prior: CountedPrior,
    observation: Observation,
    z: Tensor,
    start: float,
    config: RefineConfig,
    streams: NoiseStreams,
    callback: Callback,
) -> Tensor:
    """Published stage 2: from z at T_s by the mean of DDIM's steps, less a step down the data term at every one.

    ``config.steps`` steps of equal time, 400 unit steps from 0.4. No noise is added; ``config.eta`` only lowers what
    is kept of the predicted noise. Returns the prediction of z_0 at the last step, ``[batch, *latent_shape]``.
    """
    perceptual = PerceptualTerm(observation, config.perceptual_weight, config.perceptual)
    times = [start * (1 - i / config.steps) for i in range(config.steps + 1)]
    prediction = z
    for i, (t, s) in enumerate(pairwise(times)):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            prediction = prior.denoise(z, t)
            (gradient,) = torch.autograd.grad(data_term(prior, observation, prediction, perceptual).sum(), z)
        prediction = prediction.detach()
        mean, _ = reverse_mean(z.detach(), prediction, prior.schedule.level(s), prior.schedule.level(t), config.eta)
        z = mean - STEP * z[0].numel() / STEP_LATENTS * gradient
        callback(Progress("sample", i + 1, config.steps))
    return prediction
