"""Time travel: going back up to a noisier level and down again, for RePaint, CoPaint-TT and DDNM."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import CLEAN, Level, ReverseStep, transition
from ..diffusion.streams import NoiseStreams
from ..inference.progress import Callback, Progress
from ..settings import number
from .config import SamplerConfig


@dataclass(frozen=True, kw_only=True)
class TravelConfig(SamplerConfig):
    """A chain that runs through stretches of its levels more than once.

    Attributes:
        travel_length: reverse steps in a stretch.
        travel_visits: runs through each stretch; 1 for no time travel.
    """

    travel_length: int = number(10, 1)
    travel_visits: int = number(1, 1)

    def path(self, steps: int) -> list[int]:
        """The levels that a chain of ``steps`` visits, 0 the noisiest and ``steps`` the clean latent.

        RePaint's schedule (Lugmayr et al. 2022, section 4.2 and its code): stretches are counted from the clean end,
        and the chain runs through the noisiest one once. An entry one above its predecessor is a reverse step, one
        ``travel_length`` below it is a jump to a noisier level.
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

    def moves(self, prior: CountedPrior) -> list[Move]:
        """The reverse steps and jumps of the chain, in order."""
        times = self.grid(prior)
        levels = [*map(prior.schedule.level, times), CLEAN]
        return [Move(i, ReverseStep(times[i], levels[i], levels[j]), j < i) for i, j in pairwise(self.path(len(times)))]


class Move(NamedTuple):
    """A reverse step from the level number ``place``, or a jump from there to the noisier level ``step.next``."""

    place: int
    step: ReverseStep
    jump: bool


def noised(z: Tensor, s: Level, t: Level, streams: NoiseStreams) -> Tensor:
    """A draw from q(z_t | z_s) for s < t: the same law as the published single steps from s to t."""
    a, v = transition(s, t)
    return a * z + math.sqrt(v) * streams.normal(z)


def reported_steps(moves: Sequence[Move], callback: Callback) -> Iterator[Move]:
    """The moves of a chain, with a :class:`Progress` of stage "sample" after the body of each reverse step."""
    done, total = 0, sum(not move.jump for move in moves)
    for move in moves:
        yield move
        if not move.jump:
            done += 1
            callback(Progress("sample", done, total))
