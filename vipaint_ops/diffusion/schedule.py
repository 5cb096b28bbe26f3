"""Noise schedules: z_t = alpha_t z_0 + sigma_t eps, for variance-preserving and flow models alike.

Time ``t`` is normalised training time in [0, 1], 0 clean and 1 noise. Methods use noise levels (alpha, sigma) only, so
they run on every kind of schedule. Schedules are evaluated in float64 on the CPU: some devices (Apple MPS) lack it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, overload

import torch
from torch import Tensor

from ..errors import InputError

_SAME_LOG_SNR = 1e-3
"""ComfyUI has no noise level at the ends of a schedule: its first is taken 1e-6, so 0.001 steps of 1000, within. There
the log-SNR falls by ln 2 = 0.69 a step, where the first two betas are alike."""
_VP_WORDS = 5


class Level(NamedTuple):
    """A noise level: z = alpha z_0 + sigma eps."""

    alpha: float
    sigma: float


CLEAN = Level(1.0, 0.0)


class ReverseStep(NamedTuple):
    """A step of a reverse chain: from time ``t``, of noise level ``level``, to the level ``next``."""

    t: float
    level: Level
    next: Level


class Transition(NamedTuple):
    """q(z_t | z_s) = N(a z_s, v) for s < t."""

    a: float
    v: float


class ReverseKernel(NamedTuple):
    """q(z_s | z_t, z_0) = N(on_z z_t + on_z0 z_0, variance) for s < t."""

    on_z: float
    on_z0: float
    variance: float


def are_descending(times: Sequence[float]) -> bool:
    """Whether these are times of a reverse chain: one or more numbers in (0, 1], each below the one before."""
    inside = all(isinstance(t, (int, float)) and 0 < t <= 1 for t in times)
    return len(times) > 0 and inside and all(a > b for a, b in pairwise(times))


def same_schedule(one: str, other: str) -> bool:
    """Whether two descriptions (:attr:`NoiseSchedule.description`) are of one schedule.

    Those of ComfyUI's variance-preserving schedules lack the number of steps, 1000, and differ at the ends by less than
    :data:`_SAME_LOG_SNR`.
    """
    first, second = (_words(description) for description in (one, other))
    if first[0] != "vp" or len(first) != len(second) or len(first) != _VP_WORDS:
        return one == other
    try:
        apart = max(abs(float(a) - float(b)) for a, b in zip(first[2:], second[2:], strict=True))
    except ValueError:
        return False
    return first[:2] == second[:2] and apart < _SAME_LOG_SNR


def _words(description: str) -> list[str]:
    words = description.split() or [""]
    return ["vp", "1000", *words[1:]] if words[0] == "vp" and len(words) == _VP_WORDS - 1 else words


def transition(s: Level, t: Level) -> Transition:
    """The forward kernel between two levels: a = alpha_t / alpha_s, v = sigma_t^2 - a^2 sigma_s^2."""
    a = t.alpha / s.alpha
    return Transition(a, t.sigma**2 - (a * s.sigma) ** 2)


def reverse_kernel(s: Level, t: Level) -> ReverseKernel:
    """The reverse kernel given the clean latent, in closed form (DDPM, eq. 6-7, in any schedule)."""
    a, v = transition(s, t)
    variance = s.sigma**2 * v / t.sigma**2
    return ReverseKernel(a * s.sigma**2 / t.sigma**2, s.alpha * v / t.sigma**2, variance)


def bridge(e: Level, s: Level, t: Level) -> ReverseKernel:
    """q(z_s | z_t, z_e) for e < s < t: :func:`reverse_kernel` with z_e in the place of z_0."""
    a_se, v_se = transition(e, s)
    a_ts, v_ts = transition(s, t)
    variance = 1 / (1 / v_se + a_ts**2 / v_ts)
    return ReverseKernel(variance * a_ts / v_ts, variance * a_se / v_se, variance)


def reverse_mean(z: Tensor, z0: Tensor, s: Level, t: Level, eta: float = 1.0) -> tuple[Tensor, float]:
    """Mean and variance of the reverse step from ``t`` to ``s`` given a prediction of z_0.

    DDIM (eq. 12) for any schedule. eta = 0 is deterministic, eta = 1 is exact ancestral sampling. A larger eta draws a
    larger part of the noise afresh, at most all of it.
    """
    variance = min(eta**2 * reverse_kernel(s, t).variance, s.sigma**2)
    noise = math.sqrt(s.sigma**2 - variance) / t.sigma
    return s.alpha * z0 + noise * (z - t.alpha * z0), variance


class NoiseSchedule(ABC):
    """alpha(t), sigma(t) and log-SNR(t) = ln(alpha^2 / sigma^2) for t in [0, 1], decreasing in t."""

    @abstractmethod
    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def time_at_log_snr(self, value: float) -> float:
        """The time whose log-SNR is ``value``, clamped to the schedule's range."""

    @property
    @abstractmethod
    def description(self) -> str:
        """A short string that two schedules share exactly when they are the same."""

    @overload
    def alpha(self, t: Tensor) -> Tensor: ...
    @overload
    def alpha(self, t: float) -> float: ...
    def alpha(self, t):
        """Signal coefficient at time ``t``: a float for a float, a tensor of the same shape for a tensor."""
        return self._evaluate(t, lambda alpha, sigma: alpha)

    @overload
    def sigma(self, t: Tensor) -> Tensor: ...
    @overload
    def sigma(self, t: float) -> float: ...
    def sigma(self, t):
        """Noise coefficient at time ``t``; types as in :meth:`alpha`."""
        return self._evaluate(t, lambda alpha, sigma: sigma)

    def log_snr(self, t):
        """ln(alpha^2 / sigma^2) at time ``t``; minus infinity where alpha is 0."""
        return self._evaluate(t, lambda alpha, sigma: 2 * (alpha.log() - sigma.log()))

    def level(self, t: float) -> Level:
        """The noise level at time ``t``."""
        return Level(self.alpha(t), self.sigma(t))

    def time_at_ratio(self, ratio: float) -> float:
        """The time at which sigma / alpha is ``ratio``."""
        return self.time_at_log_snr(-2 * math.log(ratio))

    def reverse_steps(self, times: Sequence[float]) -> list[ReverseStep]:
        """The steps of a reverse chain at decreasing ``times``; the last one leads to the clean latent."""
        levels = [*map(self.level, times), CLEAN]
        return [ReverseStep(t, *pair) for t, pair in zip(times, pairwise(levels), strict=True)]

    def _evaluate(self, t, function: Callable[[Tensor, Tensor], Tensor]):
        if isinstance(t, Tensor):
            return function(*self._alpha_sigma(t.cpu().double())).to(t.dtype).to(t.device)
        return function(*self._alpha_sigma(torch.tensor(t, dtype=torch.float64))).item()

    @staticmethod
    def vp(betas: Sequence[float] | Tensor) -> NoiseSchedule:
        """Variance-preserving schedule of a discrete DDPM with these ``betas``.

        Between its N steps the log-SNR is interpolated linearly; t = i / (N - 1) is step i, so t = 0
        still carries the first step's noise.
        """
        return _VariancePreserving(torch.as_tensor(betas, dtype=torch.float64))

    @staticmethod
    def scaled_linear(start: float, end: float, steps: int = 1000) -> NoiseSchedule:
        """Latent diffusion's schedule: betas whose square roots run linearly from ``start`` to ``end``."""
        return NoiseSchedule.vp(torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2)

    @staticmethod
    def rectified_flow(shift: float = 1.0) -> NoiseSchedule:
        """Rectified flow: alpha = 1 - sigma, sigma = shift t / (1 + (shift - 1) t) (SD3, eq. 23)."""
        return _RectifiedFlow(shift)


class _VariancePreserving(NoiseSchedule):
    def __init__(self, betas: Tensor):
        if betas.ndim != 1 or len(betas) < 2 or not ((betas > 0) & (betas < 1)).all():
            raise InputError("betas must be a sequence of at least two numbers between 0 and 1")
        abar = torch.cumprod(1 - betas, 0)
        self._log_snr = (abar / (1 - abar)).log()

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        table = self._log_snr
        position = t.clamp(0, 1) * (len(table) - 1)
        lower = position.floor().long().clamp(max=len(table) - 2)
        log_snr = torch.lerp(table[lower], table[lower + 1], position - lower)
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()

    def time_at_log_snr(self, value: float) -> float:
        table = self._log_snr.flip(0)
        upper = int(torch.searchsorted(table, value).clamp(1, len(table) - 1))
        low, high = table[upper - 1].item(), table[upper].item()
        part = min(max((value - low) / (high - low), 0.0), 1.0)
        return 1 - (upper - 1 + part) / (len(table) - 1)

    @property
    def description(self) -> str:
        ends = self._log_snr[[0, len(self._log_snr) // 2, -1]].tolist()
        return f"vp {len(self._log_snr)} " + " ".join(f"{v:.6g}" for v in ends)


class _RectifiedFlow(NoiseSchedule):
    def __init__(self, shift: float):
        if not 0 < shift < math.inf:
            raise InputError(f"shift must be positive, got {shift}")
        self._shift = shift

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.clamp(0, 1)
        sigma = self._shift * t / (1 + (self._shift - 1) * t)
        return 1 - sigma, sigma

    def time_at_log_snr(self, value: float) -> float:
        sigma = 1 / (1 + math.exp(min(value / 2, 700.0)))
        return sigma / (self._shift - (self._shift - 1) * sigma)

    @property
    def description(self) -> str:
        return f"flow {self._shift:.6g}"
