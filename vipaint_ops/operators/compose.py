"""Composition: one degradation after another."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from .base import Operator
from .least_squares import least_squares


class Compose(Operator):
    """A x = then(first(x)): Compose(blur, down, mask)(x) is mask(down(blur(x))).

    The adjoint is exact. ``squared`` takes variances from stage to stage and so drops the correlations in between: it
    is exact when at most one stage lets neighbouring pixels mix (masks, crops, grey and averages over separate blocks
    do not), and an approximation otherwise. ``pinv`` inverts leading stages of orthogonal rows (crop, grey, average),
    and masks and crops alone, one by one, which is exact. If one stage remains, its own is used; if more, their
    composition is inverted by :func:`~vipaint_ops.operators.least_squares.least_squares`. What counts as measured is up
    to the last stage.
    """

    stages: list[Operator]

    def __init__(self, first: Operator, *then: Operator):
        self.stages = []
        for stage in (first, *then):
            self.stages += stage.stages if isinstance(stage, Compose) else [stage]
        self.selects = all(stage.selects for stage in self.stages)
        self.orthogonal_rows = all(stage.orthogonal_rows for stage in self.stages)

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
        return reduce(lambda variance, stage: stage.squared(variance), self.stages, v)

    def observed(self, y: Tensor) -> Tensor:
        return self.stages[-1].observed(y)

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return reduce(lambda sides, stage: stage.picture_size(sides), reversed(self.stages), size)

    def to(self, device: torch.device, dtype: torch.dtype) -> Compose:
        return Compose(*(stage.to(device, dtype) for stage in self.stages))
