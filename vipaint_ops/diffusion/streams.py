"""One random stream a sample, so that sample k is the same in any batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class NoiseStreams:
    """One random stream a row, drawn on the CPU, so that a seed gives the same noise on every device.

    Args:
        seed: of all streams.
        rows: the number of each stream.
        first: standard normal noise for the start of the chains, ``[len(rows), *latent_shape]``; drawn if not given.
    """

    def __init__(self, seed: int, rows: Sequence[int], first: Tensor | None = None):
        self._first, self._seed, self._numbers = first, seed, list(rows)
        start = _scramble(seed)
        # torch's CPU generator reads the low 32 bits of a seed and no more, so they must depend on all of it.
        self._generators = [torch.Generator().manual_seed(_scramble(start + row) % 2**32) for row in rows]

    @property
    def rows(self) -> int:
        """How many streams there are."""
        return len(self._generators)

    @staticmethod
    def seed_from(generator: torch.Generator) -> int:
        """Draw the seed of a set of streams from the caller's generator."""
        return int(torch.randint(2**62, (1,), generator=generator, device=generator.device).item())

    def only(self, rows: Sequence[int]) -> NoiseStreams:
        """The streams of some rows. They are shared: a draw advances both."""
        part = NoiseStreams(self._seed, ())
        part._generators = [self._generators[row] for row in rows]
        part._numbers = [self._numbers[row] for row in rows]
        return part

    def batches(self, size: int) -> list[NoiseStreams]:
        """These streams in groups of ``size``, the last one smaller; shared as by :meth:`only`."""
        return [self.only(range(self.rows)[start : start + size]) for start in range(0, self.rows, size)]

    def dealt(self, count: int) -> Tensor:
        """A number below ``count`` for each row: ``count`` consecutive streams of a seed have them all, shuffled."""
        deck = torch.randperm(count, generator=torch.Generator().manual_seed(_scramble(self._seed) % 2**32))
        return deck[[number % count for number in self._numbers]]

    def first(self, like: Tensor) -> Tensor:
        """The noise at the start of a chain: the given one, or drawn."""
        return self.normal(like) if self._first is None else self._first.to(like.device, like.dtype)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape, dtype and device of ``like``."""
        rows = [torch.randn(like.shape[1:], generator=g, dtype=like.dtype) for g in self._generators]
        return torch.stack(rows).to(like.device)


def _scramble(value: int) -> int:
    """SplitMix64 (Steele et al. 2014): 64 bits, each of which depends on all bits of ``value``."""
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31
