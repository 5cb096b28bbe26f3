"""Progress of a running fit or sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar


@dataclass(frozen=True)
class Progress:
    """One finished step: ``step`` of ``total`` in ``stage``, with the loss terms in nats where there are any."""

    stage: str
    step: int
    total: int
    terms: dict[str, float] = field(default_factory=dict)


Callback = Callable[[Progress], None]
"""Called after every step; to interrupt, raise: nothing is left patched or half-written."""

Item = TypeVar("Item")


def reported(items: Sequence[Item], callback: Callback) -> Iterator[Item]:
    """The items of a loop, with a :class:`Progress` of stage "sample" after the body of each."""
    for i, item in enumerate(items, 1):
        yield item
        callback(Progress("sample", i, len(items)))
