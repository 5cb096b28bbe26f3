"""The measurement operator A of y = A x + noise, with its adjoint and pseudo-inverse."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError


class Operator(ABC):
    """A linear map A from pictures ``[batch, ...]`` to measurements ``[batch, ...]``.

    Every method raises :class:`~vipaint_ops.errors.InputError` for a tensor of a size that A does not take.

    Attributes:
        selects: whether each measurement is one pixel times a weight, and no pixel is measured twice.
        orthogonal_rows: whether A A^T is a multiple of the identity, so that (B A)^+ = A^+ B^+ for every B.
    """

    selects: bool = False
    orthogonal_rows: bool = False

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, with <A x, y> = <x, A^T y> exactly."""

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y, the Moore-Penrose pseudo-inverse."""

    @abstractmethod
    def squared(self, v: Tensor) -> Tensor:
        """The diagonal of A diag(v) A^T: independent variances ``v`` of the picture seen through A."""

    def observed(self, y: Tensor) -> Tensor:
        """Which entries of ``y`` are measurements (boolean, the shape of ``y``)."""
        return torch.ones_like(y, dtype=torch.bool)

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the picture that measurements of ``size`` come from.

        Raises:
            InputError: measurements of this size do not exist.
        """
        return size

    @property
    def description(self) -> str:
        """A short string that two operators share when they are the same, to about four digits.

        It covers all attributes: an operator that keeps anything else than its definition overrides it.
        """
        return f"{type(self).__name__}({', '.join(_described(value) for _, value in sorted(vars(self).items()))})"

    def to(self, device: torch.device, dtype: torch.dtype) -> Operator:
        """This operator with its tensors on ``device`` in ``dtype``."""
        return self


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    digits = (value.detach().cpu().double() * 1e4).round().int()
    return f"{tuple(digits.shape)} {hashlib.sha256(digits.numpy().tobytes()).hexdigest()[:16]}"


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype for sums over pixels of ``dtype``: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def require_planes(x: Tensor) -> None:
    """Refuse a tensor that is no batch of pictures, ``[..., channels, height, width]``, or an empty one.

    Raises:
        InputError: see above.
    """
    if x.ndim < 3 or x.numel() == 0:
        raise InputError(f"picture has shape {tuple(x.shape)}; it must be [batch, channels, height, width], not empty")
    if x.is_complex():
        raise InputError("picture has complex numbers; give real ones")


def require_pictures(**tensors: Tensor) -> None:
    """Refuse what is no batch of pictures ``[batch, channels, height, width]``, by the names that are given.

    Raises:
        InputError: another number of dimensions, no pixels, no floating-point numbers, or sizes that differ; NaN in
            ``mask``.
    """
    for name, x in tensors.items():
        if x.ndim != 4 or x.numel() == 0 or not x.is_floating_point():
            kind = str(x.dtype).removeprefix("torch.")
            raise InputError(
                f"{name} has shape {tuple(x.shape)} of {kind}; it must be [batch, channels, height, width], not empty, "
                "of floating-point numbers"
            )
    if "mask" in tensors and not tensors["mask"].isfinite().all():
        raise InputError("mask contains NaN or infinite values")
    try:
        torch.broadcast_shapes(*(x.shape for x in tensors.values()))
    except RuntimeError as error:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
        raise InputError(f"sizes differ: {shapes}; give pictures and masks of one size") from error
