"""Composition: one degradation after another."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from .base import Operator
from .least_squares import least_squares

PROBES = 100_000
"""Random signs in total for the estimate of a trace: error about 3 % where 30 measurements share pixels."""


class Compose(Operator):
    """A x = then(first(x)): Compose(blur, down, mask)(x) is mask(down(blur(x))).

    The adjoint is exact. ``squared`` takes variances from stage to stage. It is exact if a stage whose measurements
    share pixels (a blur, bicubic downsampling) is followed by masks and crops only. Otherwise later stages mix
    correlated values, and the result is scaled to the right mean for equal variances. ``pinv`` inverts leading stages
    of orthogonal rows (crop, grey, average), and compositions of masks and crops, one by one, which is exact. If one
    stage remains, its own ``pinv`` is used; if more, their composition is inverted by
    :func:`~vipaint_ops.operators.least_squares.least_squares`. The last stage defines the measured entries.
    """

    stages: list[Operator]

    def __init__(self, first: Operator, *then: Operator):
        self.stages = []
        for stage in (first, *then):
            self.stages += stage.stages if isinstance(stage, Compose) else [stage]
        self.selects = all(stage.selects for stage in self.stages)
        self.orthogonal_rows = all(stage.orthogonal_rows for stage in self.stages)
        shared = [not (stage.selects or stage.orthogonal_rows) for stage in self.stages]
        after = self.stages[shared.index(True) + 1 :] if any(shared) else []
        self._uncorrelated = all(stage.selects for stage in after)
        self._scales: dict[tuple[torch.Size, torch.device], Tensor] = {}

    @property
    def description(self) -> str:
        """The stages' descriptions, in order."""
        return f"Compose({', '.join(stage.description for stage in self.stages)})"

    def __call__(self, x: Tensor) -> Tensor:
        return reduce(lambda picture, stage: stage(picture), self.stages, x)

    def adjoint(self, y: Tensor) -> Tensor:
        return reduce(lambda seen, stage: stage.adjoint(seen), reversed(self.stages), y)

    def pinv(self, y: Tensor) -> Tensor:
        first, *rest = self.stages
        if not rest:
            return first.pinv(y)
        if first.orthogonal_rows or self.selects:
            return first.pinv(Compose(*rest).pinv(y))
        return least_squares(self, y)

    def squared(self, v: Tensor) -> Tensor:
        passed = self._passed(v)
        return passed if self._uncorrelated else self._correction(v[:1]) * passed

    def _passed(self, v: Tensor) -> Tensor:
        return reduce(lambda variance, stage: stage.squared(variance), self.stages, v)

    def _correction(self, like: Tensor) -> Tensor:
        """The trace of A A^T over the sum of ``_passed`` for pictures as large as ``like`` (Hutchinson)."""
        key = like.shape, like.device
        if key not in self._scales:
            passed = self._passed(torch.ones_like(like))
            count = max(1, PROBES // passed.numel())
            generator = torch.Generator().manual_seed(0)
            signs = torch.randint(0, 2, (count, *passed.shape[1:]), generator=generator).to(passed) * 2 - 1
            self._scales[key] = self.adjoint(signs).square().sum() / (count * passed.sum())
        return self._scales[key].to(like.dtype)

    def observed(self, y: Tensor) -> Tensor:
        return self.stages[-1].observed(y)

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return reduce(lambda sides, stage: stage.picture_size(sides), reversed(self.stages), size)

    def to(self, device: torch.device, dtype: torch.dtype) -> Compose:
        return Compose(*(stage.to(device, dtype) for stage in self.stages))
