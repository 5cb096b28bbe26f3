"""Settings that all samplers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import are_descending
from ..errors import InputError
from ..inference.chain import end_time, even_times, start_time, time_grid
from ..inference.decoder import DECODERS
from ..settings import Settings, choice, number


@dataclass(frozen=True, kw_only=True)
class SamplerConfig(Settings):
    """Length of a chain, and the samples of a batch.

    Attributes:
        steps: reverse steps from pure noise, even in time.
        times: the times of the steps in place of ``steps``, decreasing, in (0, 1]; after the last comes the step to the
            clean latent.
        batch_size: samples computed together.
        decoder: whose Jacobian is used: "exact", the decoder's own; "linear", that of a local linear map fitted to it
            (:mod:`~vipaint_ops.inference.decoder`), which needs no gradient of the decoder.
    """

    steps: int = number(250, 1)
    times: tuple[float, ...] | None = None
    batch_size: int = number(8, 1)
    decoder: str = choice("exact", DECODERS)

    def __post_init__(self):
        super().__post_init__()
        if self.times is not None and not are_descending(self.times):
            raise InputError(f"times are {list(self.times)}; give one or more in (0, 1], decreasing")

    @property
    def population(self) -> int:
        """Samples that are drawn together, as particles are."""
        return 1

    def grid(self, prior: CountedPrior) -> list[float]:
        """The times of the steps under ``prior``, none of them noisier than the start of a chain."""
        start = start_time(prior.schedule, prior.data_std)
        return self._spread(prior, start) if self.times is None else below(start, self.times)

    def _spread(self, prior: CountedPrior, start: float) -> list[float]:
        return even_times(start, self.steps)


@dataclass(frozen=True, kw_only=True)
class LogSnrConfig(SamplerConfig):
    """A chain whose ``steps`` are even in log-SNR."""

    def _spread(self, prior: CountedPrior, start: float) -> list[float]:
        return time_grid(prior.schedule, start, end_time(prior.schedule, prior.data_std), self.steps)


def below(start: float, times: Sequence[float]) -> list[float]:
    """Decreasing ``times``, those above ``start`` replaced by ``start`` itself."""
    kept = [t for t in times if t < start]
    return kept if len(kept) == len(times) else [start, *kept]
