"""What a running fit or sampler tells its caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One finished step: ``step`` of ``total`` in ``stage``, with the loss terms in nats where there are any."""

    stage: str
    step: int
    total: int
    terms: dict[str, float] = field(default_factory=dict)


Callback = Callable[[Progress], None]
"""Called after every step; to interrupt, raise: nothing is left patched or half-written."""
