"""The pseudo-inverse of operators that have no closed form for it."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Operator, working_dtype

TOLERANCE = 1e-3
ITERATIONS = 300


def least_squares(operator: Operator, y: Tensor) -> Tensor:
    """The x of least norm among those of least \\|y - A x\\|, by conjugate gradients (CGLS), each row for itself.

    A row stops when its residual is below 1e-3 of y, when the residual is that close to orthogonal to the range of A,
    or after 300 iterations. So A A^+ A x is A x within 1e-3 where 300 iterations reach that, and within 1e-2 for the
    blurs of this library (docs/operators.md). Early stopping limits the amplification of noise where A is nearly
    singular.
    """
    residual = y.to(working_dtype(y.dtype))
    gradient = operator.adjoint(residual)
    x, direction = torch.zeros_like(gradient), gradient
    slope = _dot(gradient, gradient)
    size, steepest = _dot(residual, residual), slope
    for _ in range(ITERATIONS):
        left = _dot(residual, residual)
        running = (left > TOLERANCE**2 * size) & (slope * size > TOLERANCE**2 * steepest * left)
        if not running.any():
            break
        image = operator(direction)
        step = _column(torch.where(running, slope / _dot(image, image), 0.0), x)
        x = x + step * direction
        residual = residual - _column(step, residual) * image
        gradient = operator.adjoint(residual)
        before, slope = slope, _dot(gradient, gradient)
        direction = gradient + _column(torch.where(running, slope / before, 0.0), x) * direction
    return x.to(y.dtype)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _column(value: Tensor, like: Tensor) -> Tensor:
    """One number a row, shaped to multiply ``like``."""
    return value.view(-1, *[1] * (like.ndim - 1))
