"""What the configuration of every sampler holds."""

from __future__ import annotations

from dataclasses import dataclass

from ..diffusion.prior import DiffusionPrior
from ..diffusion.schedule import are_descending
from ..errors import InputError
from ..inference.chain import even_times, start_time


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How long a chain is, and how many run together.

    Attributes:
        steps: reverse steps from pure noise, even in time.
        times: the times of the steps in place of ``steps``, decreasing, in (0, 1]; after the last comes the step to the
            clean latent.
        batch_size: samples computed together; it changes memory, not results.
    """

    steps: int = 250
    times: tuple[float, ...] | None = None
    batch_size: int = 8

    def __post_init__(self):
        if self.times is not None and not are_descending(self.times):
            raise InputError(f"times are {list(self.times)}; give one or more in (0, 1], decreasing")

    def grid(self, prior: DiffusionPrior) -> list[float]:
        """The times of the steps under ``prior``, none of them noisier than a chain can begin."""
        start = start_time(prior.schedule, prior.data_std)
        if self.times is None:
            return self._spread(prior, start)
        return [start] * (self.times[0] >= start) + [t for t in self.times if t < start]

    def _spread(self, prior: DiffusionPrior, start: float) -> list[float]:
        return even_times(start, self.steps)
