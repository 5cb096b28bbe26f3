"""ComfyUI's model sampling as a noise schedule of the library."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...vipaint_ops.diffusion.schedule import NoiseSchedule
from ...vipaint_ops.errors import InputError

_POINTS = 1000
"""Training steps of most hosts. Between two of them the log-SNR is interpolated, as in ComfyUI."""
_EDGE = 1e-6
"""At exactly 0 and 1, percent_to_sigma returns markers instead of noise levels."""


class HostSchedule(NoiseSchedule):
    """alpha and sigma of the model behind a MODEL, and conversion to the host's latents and sigma.

    ComfyUI's noisy latent is a x_0 + b eps with sigma s. (a, b) = (1, s) for noise prediction, scaled to unit variance
    here, and (1 - s, c s) for flows, with c = 1 for most.

    Raises:
        InputError: a kind of sampling of neither form.
    """

    def __init__(self, model_sampling: Any):
        one, zero = torch.ones(1), torch.zeros(1)
        half = torch.full((1,), 0.5)
        signal = model_sampling.noise_scaling(half, zero.clone(), one).item()
        noise = model_sampling.noise_scaling(half, one.clone(), zero).item()
        kind = type(model_sampling).__mro__[1].__name__
        if noise <= 0 or signal not in (0.5, 1.0):
            raise InputError(
                f"model samples by {kind}, which VIPaint does not support: its noise level cannot be derived"
            )
        self._flow, self._noise = signal == 0.5, 2 * noise
        self._times = np.linspace(0, 1, _POINTS)
        percents = 1 - self._times.clip(_EDGE, 1 - _EDGE)
        # Rounded to single precision, in which saved posteriors name their schedule.
        sigmas = np.float32([model_sampling.percent_to_sigma(percent) for percent in percents.tolist()]).astype(float)
        ratios = self._noise * sigmas / (1 - sigmas) if self._flow else sigmas
        self._log_snr = -2 * np.log(ratios)
        if not np.isfinite(self._log_snr).all() or (np.diff(self._log_snr) >= 0).any():
            raise InputError(
                f"model samples by {kind}, which VIPaint does not support: its noise does not increase with time"
            )

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_snr = torch.as_tensor(np.interp(t.numpy(), self._times, self._log_snr))
        if not self._flow:
            return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
        ratio = (-log_snr / 2).exp() / self._noise
        sigma = ratio / (1 + ratio)
        return 1 - sigma, self._noise * sigma

    def time_at_log_snr(self, value: float) -> float:
        return float(np.interp(value, self._log_snr[::-1], self._times[::-1]))

    def to_host(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The host's noisy latent and its sigma (``[batch]``) for ``z`` at times ``t`` (``[batch]``)."""
        alpha, sigma = self.alpha(t).to(z), self.sigma(t).to(z)
        if self._flow:
            return z, sigma / self._noise
        return z / alpha.view(-1, *[1] * (z.ndim - 1)), sigma / alpha

    def time_at_host(self, sigma: float) -> float:
        """The time at which :meth:`to_host` returns ``sigma``, clamped to the schedule's range; never 0."""
        signal = max(1 - sigma, _EDGE) if self._flow else 1.0
        return max(self.time_at_ratio(self._noise * sigma / signal), _EDGE)

    @property
    def description(self) -> str:
        ends = self._log_snr[[0, _POINTS // 2, -1]].tolist()
        return f"{'flow' if self._flow else 'vp'} " + " ".join(f"{v:.6g}" for v in ends)
