"""CoPaint: at every noise level, move the latent until its prediction agrees with the observation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import Level, reverse_mean
from ..diffusion.streams import NoiseStreams
from ..inference.chain import pure_noise
from ..inference.corrections import decoder_gain
from ..inference.progress import Progress
from ..measurement.observation import Observation
from ..settings import number
from .driver import gaussian_only, sampler
from .travel import TravelConfig, noised

SHRINK, MOST_TRIES = 0.8, 60
"""Factor on a step that raised the objective (published), and tries after which the latent is not moved."""

GAIN_STEP = 0.3
"""Standard deviation of the noise that measures the decoder's gain, in those of latents."""


@dataclass(frozen=True, kw_only=True)
class CoPaintConfig(TravelConfig):
    """Published constants of CoPaint; the defaults are those for CelebA-HQ 256 (``configs/celebahq.yaml`` of the public
    code), which are the same for inpainting and super-resolution.

    The published factors a step are written here as factors over the whole chain, so that they mean the same for any
    number of steps.

    Attributes:
        gradient_steps: G, gradient steps at every noise level.
        step_size: mu_0, of the gradient of a sum over latents (:func:`objective`), for a chain's first level.
        step_growth: what the step size has grown by at the end of the chain.
        follows_signal: whether the step size also shrinks with the signal, alpha_t (1 at the end).
        weight: lambda_0, of the squared distance from where the optimisation at a level began.
        weight_growth: what lambda has grown by at the end of the chain.
        prediction_steps: DDIM steps (eta = 0) of the prediction of z_0; the gradient goes through all of them.
    """

    steps: int = number(250, 1)
    gradient_steps: int = number(2, 1)
    step_size: float = number(0.02, 0)
    step_growth: float = number(1.012**250, 0)
    follows_signal: bool = True
    weight: float = number(1e-4, 0)
    weight_growth: float = number(1.01**250, 0)
    prediction_steps: int = number(1, 1)

    def prediction_times(self, times: Sequence[float]) -> list[float]:
        """Times of the DDIM steps of the prediction of z_0, spread over ``times``, those of the rest of the chain."""
        count = self.prediction_steps
        return [times[n] for n in sorted({k * len(times) // count for k in range(count)})]

    def at(self, level: Level, progress: float) -> tuple[float, float]:
        """Step size and weight lambda at a noise level, after a share ``progress`` of the chain.

        The published ones are for variance-preserving latents, which z / scale is under every schedule.
        """
        scale = math.hypot(*level)
        signal = level.alpha / scale if self.follows_signal else 1.0
        weight = self.weight * self.weight_growth**progress / scale**2
        return self.step_size * self.step_growth**progress * signal * scale**2, weight

    @classmethod
    def imagenet(cls) -> CoPaintConfig:
        """ImageNet 256 (``configs/imagenet.yaml``)."""
        return cls(weight=0.01, weight_growth=1.0)

    @classmethod
    def imagenet512(cls) -> CoPaintConfig:
        """ImageNet 512 (``configs/imagenet512.yaml``)."""
        return cls(
            steps=100,
            gradient_steps=5,
            step_size=0.0025,
            step_growth=1.05**100,
            follows_signal=False,
            weight=0.01,
            weight_growth=1.0,
        )

    @classmethod
    def fast(cls) -> CoPaintConfig:
        """CoPaint-Fast for CelebA-HQ (``scripts/copaint-fast.sh``)."""
        return cls(steps=100, gradient_steps=1, step_growth=1.03**100, weight_growth=1.01**100)

    @classmethod
    def fast_imagenet(cls) -> CoPaintConfig:
        """CoPaint-Fast for ImageNet (``scripts/copaint-fast.sh``)."""
        return cls(
            steps=100,
            gradient_steps=1,
            step_size=0.025,
            step_growth=1.03**100,
            weight=0.01,
            weight_growth=1.0,
        )

    @classmethod
    def time_travel(cls) -> CoPaintConfig:
        """CoPaint-TT (``scripts/copaint-tt.sh``): stretches of 10 steps, each gone through twice."""
        return cls(travel_length=10, travel_visits=2)


@sampler(CoPaintConfig, gaussian_only("CoPaint"))
def copaint(prior, observation, config, streams, callback):
    """CoPaint and CoPaint-TT (Zhang et al. 2023): DDIM with eta = 0, after G gradient steps at every level.

    The observation is taken as exact, whatever its noise. ``callback`` sees, in the term "mismatch", the
    root-mean-square of y - A D(f(z)) over measurements after every step, a mean over the batch.
    """
    times, moves = config.grid(prior), config.moves(prior)
    z, done, total = pure_noise(prior, times[0], streams), 0, sum(not move.jump for move in moves)
    with torch.no_grad():
        start = prior.encode(observation.operator.pinv(observation.y)).expand_as(z)
    share = latent_share(prior, start, streams)
    for i, step, jump in moves:
        step_size, weight = config.at(step.level, i / len(times))
        objective = Objective(prior, observation, config.prediction_times(times[i:]), z, weight, share)
        z, found = optimised(objective, z, config.gradient_steps, step_size)
        if jump:
            z = noised(z, step.level, step.next, streams)
            continue
        z, _ = reverse_mean(z, found.z0, step.next, step.level, eta=0.0)
        done += 1
        mismatch = (found.mismatch / observation.observed.sum()).sqrt().mean().item()
        callback(Progress("sample", done, total, {"mismatch": mismatch}))
    return z


class Found(NamedTuple):
    """Predictions of latents and their objective, one row each."""

    z0: Tensor
    """The prediction of z_0 in one step, from which the chain continues."""
    mismatch: Tensor
    """||y - A D(f(z))||^2 over measurements, f the prediction of z_0 in ``prediction_steps``."""
    objective: Tensor


def latent_share(prior: CountedPrior, z0: Tensor, streams: NoiseStreams) -> Tensor:
    """Factor from a squared mismatch over pixels to one over latents, ``[rows]``.

    The published constants are for sums over the pixels of a picture that is its own latent, where this is 1. Behind a
    decoder it is d_z latents over d_x pixels, over the variance of pixels for unit variance of latents around ``z0``.
    """
    with torch.no_grad():
        picture = prior.decode(z0)
    gain = decoder_gain(prior, z0, picture, GAIN_STEP * prior.data_std, streams).flatten()
    return z0[0].numel() / picture[0].numel() / gain


class Objective:
    """share ||y - A D(f(z))||^2 + lambda ||z - origin||^2 of every sample, at one noise level.

    Args:
        times: this level's, and those of the prediction's further steps.
        origin: ``[rows, *latent_shape]``.
        share: of :func:`latent_share`.
    """

    def __init__(
        self,
        prior: CountedPrior,
        observation: Observation,
        times: Sequence[float],
        origin: Tensor,
        weight: float,
        share: Tensor,
    ):
        self._prior, self._observation, self._times = prior, observation, times
        self._origin, self._weight, self._share = origin, weight, share

    def __call__(self, z: Tensor, rows: Tensor) -> Found:
        """Evaluate latents ``z`` in the place of the chosen ``rows``."""
        levels = [self._prior.schedule.level(t) for t in self._times]
        x, prediction = z, self._prior.denoise(z, self._times[0])
        first = prediction
        for n in range(1, len(levels)):
            x, _ = reverse_mean(x, prediction, levels[n], levels[n - 1], eta=0.0)
            prediction = self._prior.denoise(x, self._times[n])
        mismatch = _squares(self._observation.residual(self._prior.decode(prediction)))
        moved = _squares(z - self._origin[rows])
        return Found(first, mismatch, self._share[rows] * mismatch + self._weight * moved)


def optimised(objective: Objective, z: Tensor, steps: int, step_size: float) -> tuple[Tensor, Found]:
    """``steps`` gradient steps from ``z`` down the objective, each sample with its own step size.

    A step that would raise a sample's objective is repeated at :data:`SHRINK` of the size, which the sample keeps for
    its further steps.
    """
    size = torch.full((len(z), *[1] * (z.ndim - 1)), step_size, dtype=z.dtype, device=z.device)
    for _ in range(steps):
        rows = torch.arange(len(z), device=z.device)
        with torch.enable_grad():
            start = z.detach().requires_grad_()
            found = objective(start, rows)
            (gradient,) = torch.autograd.grad(found.objective.sum(), start)
        z, found = start.detach().clone(), Found(*(value.detach().clone() for value in found))
        for _ in range(MOST_TRIES):
            tried = start.detach()[rows] - size[rows] * gradient[rows]
            with torch.no_grad():
                there = objective(tried, rows)
            better = there.objective <= found.objective[rows]
            z[rows[better]] = tried[better]
            for kept, value in zip(found, there, strict=True):
                kept[rows[better]] = value[better]
            rows = rows[~better]
            if len(rows) == 0:
                break
            size[rows] *= SHRINK
    return z, found


def _squares(x: Tensor) -> Tensor:
    return (x**2).flatten(1).sum(1)
