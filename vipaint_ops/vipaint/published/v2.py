"""The second published setting of VIPaint, as its code ran it (AISTATS 2026; SD3.5-large-turbo, 1024 pixels).

Its fit and its refinement are kept apart from the library's own objective, because several of its terms differ from
their names. They are repeated here because the published weights were tuned to them:

- **Double sigmoid.** A known std is put through a sigmoid: z_T has std 0.731 instead of 1 (a constant KL of 0.0805 a
  dimension without gradient), and the draws between h(K) and T have 0.67 to 0.73 at noise levels of 0.75 to 1. The
  network is called off its distribution.
- **Not a mixture.** x0_q = g zh + mu lacks the factor 1 - g on mu: at the start it is about 1.7 times too large.
- **A top without parameters.** In a flow alpha_T = 0: mu and tau of the top change nothing.
- **Middle KL.** mu is an offset of z_0 in the transitions and the mean of z_h(K) here; it is scaled by the signal of a
  random time where that of h(K) belongs (index N + 1 for 2 N + 1); the first of the ten pairs is skipped, nine are
  averaged, and one pair stands for 500 single steps. Because "var" is rebuilt to sigma^2, tau never enters.
- **Latent data term.** Weight (alpha sigma)^2 sigma^2 for 1 / sigma^2: 0.0157 for 3.97 at sigma = 0.502. The mask is
  taken down to the latents by nearest neighbour, so latents that saw the hole count as observed.
- **Clamped pixels.** The decoder's output is clamped before both data terms: no gradient where it leaves [-1, 1].
- **"L1".** The term of that name in the fit is a squared error.

LPIPS, which the published refinement adds to the L1 distance with a weight of 1, is added where its configuration asks
for it (``perceptual_weight``): the library has no perceptual network of its own.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...diffusion.prior import CountedPrior
from ...diffusion.schedule import reverse_kernel, reverse_mean
from ...diffusion.streams import NoiseStreams
from ...errors import InputError
from ...inference.perceptual import PerceptualTerm
from ...inference.progress import Callback, Progress
from ...measurement.observation import Observation
from ..config import FitConfig, RefineConfig
from ..objective import BoundTerms, gaussian_kl, transition_kl
from ..posterior import HierarchicalPosterior
from ..recipe import Recipe

PIXEL_WEIGHT, LATENT_WEIGHT, KL_WEIGHT, MIDDLE_WEIGHT = 100 * 0.05 * 50, 100 * 6.0, 100 * 0.5, 100 * 0.5 * 500
"""Of the squared error of pixels in [0, 1], the latent data term, the KLs and the middle KL; means over elements."""
SPREAD, RAW = 0.5, 1.0
"""Of the start: noise on the means; tau and gamma before their sigmoid."""
MIDDLE_STEPS, MIDDLE_PAIRS = 500, 10
L1_WEIGHT, STEP, STEP_LATENTS = 20.0, 650.0, 16 * 128**2
"""Of the refinement: the step is for latents of that many elements, and scaled with them (see published_v1.STEP)."""
LAST_TIME = 3 / 1002
"""Where the published chain ends: sigma = 0.0089 after a shift of 3."""


class PublishedV2(Recipe):
    """Start and loss of the second published setting, for :func:`~vipaint_ops.vipaint.fit.fit_posterior`.

    Raises:
        InputError: the observation is not of a picture through a mask.
    """

    def __init__(self, prior: CountedPrior, observation: Observation, config: FitConfig):
        picture = observation.y.ndim == 4 and len(prior.latent_shape) == 3
        if not (picture and observation.operator.selects):
            raise InputError(
                f"the setting published_v2 is defined for pictures with a mask, not for "
                f"{type(observation.operator).__name__} of {observation.y.ndim - 1} dimensions: "
                "use published_v1 or the default"
            )
        self._prior, self._observation, self._eta = prior, observation, config.eta
        self._perceptual = PerceptualTerm(observation, config.perceptual_weight, config.perceptual)
        with torch.no_grad():
            self._encoded = prior.encode(observation.operator.adjoint(observation.y))
        known = observation.operator.adjoint(observation.observed.to(self._encoded.dtype))[:, :1] > 0
        mask = known.to(self._encoded.dtype)
        self._mask = interpolate(mask, size=tuple(prior.latent_shape[1:]), mode="nearest")

    def start(self, times: tuple[float, ...], seed: int, callback: Callback | None) -> HierarchicalPosterior:
        """Encoded observation plus noise in place of every mean; pure noise is one more keypoint above ``times``."""
        streams = NoiseStreams(seed, range(len(times) + 1))
        means = self._encoded.expand(streams.rows, *self._encoded.shape[1:])
        means = means + SPREAD * self._prior.data_std * streams.normal(means)
        raw = torch.full_like(means, RAW)
        return HierarchicalPosterior((1.0, *times), means, raw, raw.clone(), self._eta, "x0")

    def loss(self, q: HierarchicalPosterior, streams: NoiseStreams) -> BoundTerms:
        """The published terms with their weights, in place of those of the bound; not in nats.

        ``likelihood`` holds both data terms, ``transitions`` the KLs at pure noise and between keypoints,
        ``top_surrogate`` the middle KL.
        """
        keypoints = list(q.walk(self._prior, streams))
        top, bottom = keypoints[0], keypoints[-1]
        prediction = self._prior.denoise(bottom.z, bottom.time)
        picture = self._prior.decode(prediction).clamp(-1, 1)
        pixels = pixel_residual(self._observation, picture).square().flatten(1).mean(1)
        weight = (bottom.level.alpha * bottom.level.sigma**2) ** 2
        latents = weight * (self._mask * (prediction - self._encoded)).square().flatten(1).mean(1)
        kl = sum((transition_kl(k) for k in keypoints[1:]), gaussian_kl(top.q_mean, top.q_log_std, 0.0, 1.0))
        return BoundTerms(
            likelihood=PIXEL_WEIGHT * pixels + LATENT_WEIGHT * latents + self._perceptual(picture),
            transitions=KL_WEIGHT * kl / prediction[0].numel(),
            top_surrogate=MIDDLE_WEIGHT * self._middle_kl(q, streams),
        )

    def _middle_kl(self, q: HierarchicalPosterior, streams: NoiseStreams) -> Tensor:
        """Mean over nine random steps between h(K) and T of the published KL, ``[batch]``.

        The variances of its two Gaussians are equal, so it compares the prediction with mu / alpha_h(K) alone.
        """
        schedule, mu = self._prior.schedule, q.means[1]
        span = (1 - q.times[1]) / MIDDLE_STEPS
        order = streams.normal(mu.new_empty(streams.rows, MIDDLE_STEPS - 2))[0].argsort()
        steps = sorted((order[:MIDDLE_PAIRS] + 2).tolist())
        reference = schedule.alpha(1 - span * (steps[MIDDLE_PAIRS // 2] - 1))
        target = mu / schedule.alpha(q.times[1])
        values = []
        for step in steps[1:]:
            time = 1 - span * (step - 1)
            t, s = schedule.level(time), schedule.level(time - span)
            mean = (t.alpha / reference * mu).expand(streams.rows, *mu.shape)
            z = mean + 1 / (1 + math.exp(-t.sigma)) * streams.normal(mean)
            kernel = reverse_kernel(s, t)
            difference = kernel.on_z0 * (target - self._prior.denoise(z, time))
            values.append((difference**2 / (2 * kernel.variance)).flatten(1).mean(1))
        return torch.stack(values).mean(0)


def pixel_residual(observation: Observation, picture: Tensor) -> Tensor:
    """y - A x of a clamped picture, in units where white is 1 and black 0."""
    return observation.residual(picture) / 2


def refine(
    prior: CountedPrior,
    observation: Observation,
    z: Tensor,
    start: float,
    config: RefineConfig,
    streams: NoiseStreams,
    callback: Callback,
) -> Tensor:
    """Published stage 2: at every step z moves down 20 times the L1 distance, then takes an ancestral step from there.

    ``config.steps`` steps of equal time from T_s to :data:`LAST_TIME`, each with a second prediction at the moved z,
    and a last prediction, which is returned, ``[batch, *latent_shape]``.
    """
    perceptual = PerceptualTerm(observation, config.perceptual_weight, config.perceptual)
    times = torch.linspace(start, LAST_TIME, config.steps + 1, dtype=torch.float64).tolist()
    for i, (t, s) in enumerate(pairwise(times)):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            picture = prior.decode(prior.denoise(z, t)).clamp(-1, 1)
            distance = L1_WEIGHT * pixel_residual(observation, picture).abs().flatten(1).mean(1) + perceptual(picture)
            (gradient,) = torch.autograd.grad(distance.sum(), z)
        with torch.no_grad():
            z = z.detach() - STEP * z[0].numel() / STEP_LATENTS * gradient
            levels = prior.schedule.level(s), prior.schedule.level(t)
            mean, variance = reverse_mean(z, prior.denoise(z, t), *levels, config.eta)
            z = mean + math.sqrt(variance) * streams.normal(z)
        callback(Progress("sample", i + 1, config.steps))
    with torch.no_grad():
        return prior.denoise(z, times[-1])
