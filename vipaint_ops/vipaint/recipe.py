"""What a fit is made of: a start, a loss and an end, for one prior and observation."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..diffusion.streams import NoiseStreams
from ..inference.progress import Callback
from .objective import BoundTerms
from .posterior import HierarchicalPosterior


class Recipe(ABC):
    """Start, loss and end of a fit."""

    together = False
    """Whether several components descend together, each on walks of its own, or one after the other."""

    @abstractmethod
    def start(self, times: tuple[float, ...], seed: int, callback: Callback) -> HierarchicalPosterior:
        """The posterior before the first iteration; a long start reports its steps."""

    @abstractmethod
    def loss(self, q: HierarchicalPosterior, streams: NoiseStreams) -> BoundTerms:
        """The terms of the loss, over one walk down the hierarchy a stream."""

    def finish(self, q: HierarchicalPosterior, seed: int) -> HierarchicalPosterior:
        """The posterior after the last iteration, its components weighed."""
        return q
