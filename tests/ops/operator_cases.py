"""Every measurement operator as a strategy, and its matrix."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from vipaint_ops import operators

CPU = torch.device("cpu")
EXACT = ("binary", "soft", "matrix", "deficient", "bicubic", "average", "grey", "crop", "masked crop", "padded bicubic")
"""Kinds whose pseudo-inverse and variances are closed forms."""
BLURS = ("blur", "gaussian", "motion", "shake")
CHAINS = ("blur, average, mask", "grey, blur", "two blurs")
KINDS = EXACT + BLURS + CHAINS


class Case(NamedTuple):
    """An operator, the shape of the pictures it takes, their dtype, and a generator for data."""

    operator: operators.Operator
    shape: tuple[int, ...]
    dtype: torch.dtype
    generator: torch.Generator

    def draw(self, batch: int = 2) -> Tensor:
        return normal((batch, *self.shape), self.generator, self.dtype)


@st.composite
def measured(draw, kinds=KINDS, dtypes=(torch.float32, torch.float64)) -> Case:
    """Small pictures, odd and even sides, seen through one of ``kinds``."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype, kind = draw(st.sampled_from(dtypes)), draw(st.sampled_from(kinds))
    small, side = st.integers(1, 4), st.integers(7, 13)
    if kind in ("binary", "soft", "matrix", "deficient"):
        shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
        operator = plain(kind, shape, generator, draw(st.integers(1, 6)))
    elif kind in ("bicubic", "average", "padded bicubic"):
        factor, height, width = draw(st.integers(1, 5)), draw(small), draw(small)
        shape = (draw(small), factor * height, factor * width)
        operator = operators.SuperResolution(factor, kind.split()[-1])
        if kind == "padded bicubic":
            operator = operators.Compose(operators.Crop(*shape[1:], 3, 2), operator)
            shape = (shape[0], shape[1] + 3, shape[2] + 2)
    else:
        shape = (3, draw(side), draw(side))
        operator, shape = picture_operator(kind, shape, generator)
    return Case(operator.to(CPU, dtype), shape, dtype, generator)


def plain(kind: str, shape: tuple[int, ...], generator: torch.Generator, rows: int) -> operators.Operator:
    if kind in ("binary", "soft"):
        return mask_of(shape[-2:], generator, soft=kind == "soft")
    matrix = normal((rows, torch.Size(shape).numel()), generator, torch.float64)
    return operators.Linear(torch.cat([matrix, matrix[:1]]) if kind == "deficient" else matrix, shape)


def picture_operator(
    kind: str, shape: tuple[int, ...], generator: torch.Generator
) -> tuple[operators.Operator, tuple[int, ...]]:
    """An operator for pictures about as large as ``shape``, and the shape that it takes."""
    height, width = shape[1:]
    signed = operators.Blur(normal((5, 3), generator, torch.float64))
    if kind == "blur, average, mask":
        down = operators.SuperResolution(2, "average")
        return operators.Compose(signed, down, mask_of(shape[1:], generator)), (3, 2 * height, 2 * width)
    return {
        "grey": operators.Grey(),
        "crop": operators.Crop(height - 2, width - 1, 2, 1),
        "masked crop": operators.Compose(
            operators.Crop(height - 1, width, 1), mask_of((height - 1, width), generator, soft=True)
        ),
        "blur": signed,
        "gaussian": operators.GaussianBlur(7, 0.8),
        "motion": operators.MotionBlur(5, 30.0),
        "shake": operators.MotionBlur.shake(7, 0.7, generator),
        "grey, blur": operators.Compose(operators.Grey(), signed),
        "two blurs": operators.Compose(operators.GaussianBlur(5, 0.5), operators.Blur(torch.eye(3) / 3)),
    }[kind], shape


def mask_of(size: tuple[int, ...], generator: torch.Generator, soft: bool = False) -> operators.Inpainting:
    mask = torch.rand(1, *size, generator=generator, dtype=torch.float64)
    mask = torch.where(mask < 0.5, 0.0, mask if soft else 1.0)
    mask.view(-1)[0] = 1.0
    return operators.Inpainting(mask)


def normal(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def dense(operator: operators.Operator, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The operator's matrix ``[measurements, size]``, column by column."""
    size = torch.Size(shape).numel()
    return operator(torch.eye(size, dtype=dtype).view(size, *shape)).flatten(1).T


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products of rows, ``[batch]``, summed in float64."""
    return (a.double() * b.double()).flatten(1).sum(1)


def norms(a: Tensor) -> Tensor:
    return inner(a, a).sqrt()
