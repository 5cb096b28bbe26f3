"""The parametrisation of a denoiser: schedule, prediction type, number of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..diffusion.schedule import NoiseSchedule
from ..errors import InputError

# The clean latent from the network's output, z, alpha and sigma.
_CLEAN: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda out, z, alpha, sigma: (z - sigma * out) / alpha,
    "v_prediction": lambda out, z, alpha, sigma: alpha * z - sigma * out,
    "sample": lambda out, z, alpha, sigma: out,
    "flow": lambda out, z, alpha, sigma: z - sigma * out,
}
_LAST_SIGNAL = 4.8973451890853435e-08
"""alpha^2 at the last step of a schedule with zero terminal SNR, as in ComfyUI: with 0, the log-SNR is infinite."""


@dataclass(frozen=True)
class SizeShift:
    """The shift of a rectified flow that grows with the picture (``use_dynamic_shifting`` of diffusers).

    Attributes:
        tokens: of the smallest and of the largest picture.
        shifts: for these two. Between them and beyond, the shift is linear in the number of tokens.
        exponential: whether the shift of the schedule is exp(shift).
    """

    tokens: tuple[int, int]
    shifts: tuple[float, float]
    exponential: bool

    def schedule(self, tokens: int) -> NoiseSchedule:
        """The schedule of a picture of that many tokens of the denoiser."""
        (least, most), (low, high) = self.tokens, self.shifts
        shift = low + (high - low) * (tokens - least) / (most - least)
        return NoiseSchedule.rectified_flow(math.exp(shift) if self.exponential else shift)


@dataclass(frozen=True)
class Training:
    """The parametrisation that a denoiser was trained with.

    Attributes:
        schedule: the noise schedule; with ``size_shift``, that of its largest picture.
        prediction_type: the output of the denoiser: "epsilon", "v_prediction" (alpha eps - sigma z_0), "sample" (z_0)
            or "flow" (eps - z_0).
        steps: number of training steps. The time input of the denoiser is t (steps - 1); for "flow", sigma * steps.
        size_shift: schedules by the size of the picture, for models that have them.

    Raises:
        InputError: the prediction type is unknown.
    """

    schedule: NoiseSchedule
    prediction_type: str
    steps: int = 1000
    size_shift: SizeShift | None = None

    def __post_init__(self) -> None:
        if self.prediction_type not in _CLEAN:
            raise InputError(f"prediction_type is {self.prediction_type!r}; choose one of {', '.join(_CLEAN)}")

    def schedule_for(self, tokens: int) -> NoiseSchedule:
        """The schedule of a picture of that many tokens of the denoiser."""
        return self.schedule if self.size_shift is None else self.size_shift.schedule(tokens)

    def timestep(self, schedule: NoiseSchedule, t: Tensor) -> Tensor:
        """The time input of the denoiser, in training steps."""
        return schedule.sigma(t) * self.steps if self.prediction_type == "flow" else t * (self.steps - 1)

    def clean(self, schedule: NoiseSchedule, output: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """The clean latent of the denoiser's output for ``z`` at ``t``."""
        alpha, sigma = (v.to(z.dtype).view(-1, 1, 1, 1) for v in (schedule.alpha(t), schedule.sigma(t)))
        return _CLEAN[self.prediction_type](output, z, alpha, sigma)


def training_of(scheduler: Any) -> Training:
    """The parametrisation of the model of a diffusers scheduler.

    A schedule with zero terminal SNR ends in ComfyUI's smallest signal instead.

    Raises:
        InputError: the scheduler is of another kind than discrete variance-preserving or flow matching.
    """
    config, name = scheduler.config, type(scheduler).__name__
    if name.startswith("FlowMatch"):
        steps = config["num_train_timesteps"]
        if config.get("use_dynamic_shifting"):
            shift = _size_shift(config)
            return Training(shift.schedule(shift.tokens[1]), "flow", steps, shift)
        return Training(NoiseSchedule.rectified_flow(config.get("shift", 1.0)), "flow", steps)
    betas = getattr(scheduler, "betas", None)
    if betas is None:
        raise InputError(f"scheduler {name} is not supported: it must be a discrete DDPM schedule or flow matching")
    betas = betas.double()
    if betas[-1] == 1:
        # At most half of the signal before it, which may be smaller already (the schedule of DDPM).
        betas[-1] = 1 - min(_LAST_SIGNAL / (1 - betas[:-1]).prod().item(), 0.5)
    return Training(NoiseSchedule.vp(betas), config.get("prediction_type", "epsilon"), len(betas))


def _size_shift(config: Any) -> SizeShift:
    """With the values that the pipelines of diffusers take where the scheduler has none."""
    tokens = (config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096))
    shifts = (config.get("base_shift", 0.5), config.get("max_shift", 1.15))
    return SizeShift(tokens, shifts, config.get("time_shift_type", "exponential") == "exponential")
