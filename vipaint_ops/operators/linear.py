"""Any linear operator given by its matrix: the reference of the laws."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .base import Operator


class Linear(Operator):
    """A = ``matrix`` (``[measurements, size]``), applied to the flattened picture ``[batch, ...]``.

    The adjoint and the pseudo-inverse return pictures of shape ``[batch, *shape]``; ``shape`` defaults
    to ``(size,)``.
    """

    def __init__(self, matrix: Tensor, shape: tuple[int, ...] | None = None):
        self.matrix = torch.as_tensor(matrix)
        if self.matrix.ndim != 2 or not self.matrix.isfinite().all():
            raise InputError(f"matrix must be finite and two-dimensional, got shape {tuple(self.matrix.shape)}")
        self.shape = shape or (self.matrix.shape[1],)
        if torch.Size(self.shape).numel() != self.matrix.shape[1]:
            raise InputError(f"matrix has {self.matrix.shape[1]} columns, which make no pictures of shape {self.shape}")

    def __call__(self, x: Tensor) -> Tensor:
        return self._rows(x) @ self.matrix.T

    def adjoint(self, y: Tensor) -> Tensor:
        return (self._measured(y) @ self.matrix).unflatten(1, self.shape)

    def pinv(self, y: Tensor) -> Tensor:
        return (self._measured(y) @ torch.linalg.pinv(self.matrix).T).unflatten(1, self.shape)

    def squared(self, v: Tensor) -> Tensor:
        return self._rows(v) @ (self.matrix**2).T

    def observed(self, y: Tensor) -> Tensor:
        return super().observed(self._measured(y))

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.shape[-2], self.shape[-1]

    def to(self, device: torch.device, dtype: torch.dtype) -> Linear:
        return Linear(self.matrix.to(device, dtype), self.shape)

    def _rows(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x[0].numel() != self.matrix.shape[1]:
            raise InputError(f"picture has shape {tuple(x.shape)}; the matrix takes [batch, {self.matrix.shape[1]}]")
        return x.flatten(1)

    def _measured(self, y: Tensor) -> Tensor:
        if y.ndim != 2 or y.shape[1] != len(self.matrix):
            raise InputError(f"measurements have shape {tuple(y.shape)}; the matrix gives [batch, {len(self.matrix)}]")
        return y
