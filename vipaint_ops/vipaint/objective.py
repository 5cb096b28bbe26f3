"""The variational bound, term by term, in nats summed over dimensions.

    -ELBO = E[-ln p(y | z_1)] + sum_i E KL(q(z_i | z_{i+1}) || p(z_i | z_{i+1})) + KL(q(z_K) || p(z_K))

(VIPaint, eq. 8-11, with every term a true density or divergence.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import Level, transition
from ..diffusion.streams import NoiseStreams
from ..inference.corrections import decoder_gain
from ..inference.linearised import clean_variance
from ..inference.perceptual import PerceptualTerm
from ..measurement.observation import Observation
from .posterior import HierarchicalPosterior, Keypoint

_NOISIEST = 1 - 1e-4
"""The last time with a log-SNR: flows reach alpha = 0 at 1."""


@dataclass(frozen=True)
class BoundTerms:
    """Monte-Carlo draws of the negative bound's terms, each ``[batch]``, in nats.

    ``top_surrogate`` has the gradient of the top KL and not its value: see :func:`top_surrogate`.
    """

    likelihood: Tensor
    transitions: Tensor
    top_surrogate: Tensor

    @property
    def loss(self) -> Tensor:
        """The loss of a fit: a scalar with the gradient of the negative bound."""
        return (self.likelihood + self.transitions + self.top_surrogate).mean()


def bound_terms(
    prior: CountedPrior,
    observation: Observation,
    posterior: HierarchicalPosterior,
    streams: NoiseStreams,
    perceptual: PerceptualTerm | None = None,
) -> BoundTerms:
    """Draw one walk down the hierarchy a stream and evaluate every term on them.

    ``perceptual``, if given, is added to the likelihood's term, which is then no log-density any more.
    """
    keypoints = list(posterior.walk(prior, streams))
    bottom = keypoints[-1]
    prediction = prior.denoise(bottom.z, bottom.time)
    at_top = keypoints[1].parent_prediction if len(keypoints) > 1 else prediction
    assert at_top is not None
    return BoundTerms(
        likelihood=-log_likelihood(prior, observation, prediction, bottom.level, streams, perceptual),
        transitions=sum((transition_kl(k) for k in keypoints[1:]), bottom.z.new_zeros(streams.rows)),
        top_surrogate=top_surrogate(keypoints[0], at_top),
    )


def log_likelihood(
    prior: CountedPrior,
    observation: Observation,
    prediction: Tensor,
    level: Level,
    streams: NoiseStreams,
    perceptual: PerceptualTerm | None = None,
) -> Tensor:
    """ln p(y | z_1) from the one-step prediction, ``[batch]``.

    The variance includes that of the prediction: noise_std^2 plus the variance of z_0 given z_1 for independent
    latents, carried through decoder and operator. noise_std alone is over-confident. ``perceptual`` of the decoded
    prediction, if given, is subtracted.
    """
    clean = clean_variance(level, prior.data_std)
    picture = prior.decode(prediction)
    gain = decoder_gain(prior, prediction, picture, clean**0.5, streams)
    density = observation.log_likelihood(picture, clean * gain)
    return density if perceptual is None else density - perceptual(picture)


def transition_kl(keypoint: Keypoint) -> Tensor:
    """KL(q(z_i | z_{i+1}) || p(z_i | z_{i+1})) at the drawn z_{i+1}, closed form for two Gaussians; ``[batch]``."""
    assert keypoint.p_mean is not None
    return gaussian_kl(keypoint.q_mean, keypoint.q_log_std, keypoint.p_mean, keypoint.p_variance)


def gaussian_kl(mean: Tensor, log_std: Tensor, other_mean: Tensor | float, other_variance: float) -> Tensor:
    """KL(N(mean, exp(log_std)^2) || N(other_mean, other_variance)) summed over dimensions; ``[batch]``."""
    ratio = (2 * log_std).exp() / other_variance
    terms = 0.5 * (ratio - ratio.log() + (mean - other_mean) ** 2 / other_variance - 1)
    return terms.flatten(1).sum(1)


def top_surrogate(top: Keypoint, prediction: Tensor) -> Tensor:
    """A draw with the gradient of KL(q(z_K) || p(z_K)), ``[batch]``.

    grad KL = E[(dz / dphi)^T (-score_p(z))] - grad entropy(q), with score_p(z) = (alpha zh - z) / sigma^2
    detached: exact, and the prediction zh is the one the next transition makes anyway.
    """
    score = ((top.level.alpha * prediction - top.z) / top.level.sigma**2).detach()
    return -(score * top.z).flatten(1).sum(1) - top.q_log_std.sum()


def top_kl(prior: CountedPrior, posterior: HierarchicalPosterior, streams: NoiseStreams, points: int = 8) -> Tensor:
    """The value of KL(q(z_K) || p(z_K)) by the log-SNR integral, a draw a stream, in nats.

    KL(q_K || p_K) = 1/2 int E||eps_p(z_t) - eps_q(z_t)||^2 d(-log SNR) + KL(q_T || p_T)
    (VDM, Kingma et al. 2021, appendix; the integral from T_e up to the noisiest time). The integrand is steep
    at T_e where tau is small, so the midpoint rule runs in the cube root of the distance in log-SNR.
    """
    start = min(posterior.times[0], _NOISIEST)
    level = prior.schedule.level(start)
    mean, variance = level.alpha * posterior.means[0], (2 * posterior.log_stds[0]).exp()
    low, high = prior.schedule.log_snr(_NOISIEST), prior.schedule.log_snr(start)
    total = torch.zeros(streams.rows, dtype=mean.dtype, device=mean.device)
    with torch.no_grad():
        for point in range(points):
            u = (point + 0.5) / points
            t = prior.schedule.time_at_log_snr(high + u**3 * (low - high))
            now = prior.schedule.level(t)
            a, v = transition(level, now)
            marginal = a**2 * variance + v
            z = a * mean + marginal.sqrt() * streams.normal(mean.expand(streams.rows, *mean.shape))
            eps_p = (z - now.alpha * prior.denoise(z, t)) / now.sigma
            eps_q = now.sigma * (z - a * mean) / marginal
            total += 0.5 * (eps_p - eps_q).square().flatten(1).sum(1) * 3 * u**2 * (high - low) / points
    end = prior.schedule.level(_NOISIEST)
    a, v = transition(level, end)
    rest = gaussian_kl(
        (a * mean)[None], 0.5 * (a**2 * variance + v).log(), 0.0, end.sigma**2 + (end.alpha * prior.data_std) ** 2
    )
    return total + rest
