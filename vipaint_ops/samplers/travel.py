"""Time travel: going back up to a noisier level and down again, as RePaint, CoPaint-TT and DDNM do."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..diffusion.schedule import Level, transition
from ..diffusion.streams import NoiseStreams
from ..errors import InputError
from .config import SamplerConfig


@dataclass(frozen=True, kw_only=True)
class TravelConfig(SamplerConfig):
    """A chain that goes through stretches of its levels more than once.

    Attributes:
        travel_length: reverse steps in a stretch.
        travel_visits: how often each stretch is gone through; 1 for no time travel.
    """

    travel_length: int = 10
    travel_visits: int = 1

    def __post_init__(self):
        super().__post_init__()
        for name in ("travel_length", "travel_visits"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def path(self, steps: int) -> list[int]:
        """The levels that a chain of ``steps`` visits, 0 the noisiest and ``steps`` the clean latent.

        RePaint's schedule (Lugmayr et al. 2022, section 4.2 and its code): stretches are counted from the clean end,
        and the noisiest one is gone through once. An entry one above its predecessor is a reverse step, any other
        entry ``travel_length`` below it a jump.
        """
        ends = range(steps - 1, self.travel_length - 1, -self.travel_length)
        left = dict.fromkeys(ends, self.travel_visits - 1)
        path = [0]
        while path[-1] < steps:
            here = path[-1]
            jumps = left.get(here, 0) > 0
            if jumps:
                left[here] -= 1
            path.append(here - self.travel_length if jumps else here + 1)
        return path


def noised(z: Tensor, s: Level, t: Level, streams: NoiseStreams) -> Tensor:
    """A draw from q(z_t | z_s) for s < t: in law the same as the published single steps from s to t."""
    a, v = transition(s, t)
    return a * z + math.sqrt(v) * streams.normal(z)
