"""The laws every measurement operator obeys, and the closed forms of each."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vipaint_ops import operators
from vipaint_ops.errors import InputError

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


@st.composite
def measured(draw) -> tuple[operators.Operator, tuple[int, ...], torch.dtype, torch.Generator]:
    """An operator, the shape of the pictures it takes, its dtype, and a generator for data."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    kind = draw(st.sampled_from(["binary", "soft", "matrix", "deficient"]))
    if kind in ("binary", "soft"):
        mask = torch.rand(1, *shape[-2:], generator=generator, dtype=dtype)
        mask = torch.where(mask < 0.5, 0.0, mask if kind == "soft" else 1.0)
        mask.view(-1)[0] = 1.0
        return operators.Inpainting(mask), shape, dtype, generator
    size = torch.Size(shape).numel()
    matrix = torch.randn(draw(st.integers(1, 6)), size, generator=generator, dtype=dtype)
    if kind == "deficient":
        matrix = torch.cat([matrix, matrix[:1]])
    return operators.Linear(matrix, shape), shape, dtype, generator


def draw_like(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, batch: int = 2) -> Tensor:
    return torch.randn(batch, *shape, generator=generator, dtype=dtype)


def dense(operator: operators.Operator, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The operator's matrix ``[measurements, size]``, column by column."""
    size = torch.Size(shape).numel()
    return operator(torch.eye(size, dtype=dtype).view(size, *shape)).flatten(1).T


@given(measured())
def test_adjoint_law(case):
    operator, shape, dtype, generator = case
    x = draw_like(shape, dtype, generator)
    y = torch.randn(operator(x).shape, generator=generator, dtype=dtype)
    left = (operator(x) * y).flatten(1).sum(1)
    right = (x * operator.adjoint(y)).flatten(1).sum(1)
    torch.testing.assert_close(left, right, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@given(measured())
def test_pseudo_inverse_is_the_one_of_the_matrix(case):
    operator, shape, _, generator = case
    operator = operator.to(torch.device("cpu"), torch.float64)
    matrix = dense(operator, shape, torch.float64)
    y = operator(draw_like(shape, torch.float64, generator))
    noisy = y + torch.randn(y.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(operator(operator.pinv(y)), y, rtol=1e-6, atol=1e-8)
    expected = noisy.flatten(1) @ torch.linalg.pinv(matrix).T
    torch.testing.assert_close(operator.pinv(noisy).flatten(1), expected, rtol=1e-6, atol=1e-8)


@given(measured())
def test_squared_is_the_diagonal_of_the_seen_covariance(case):
    operator, shape, dtype, generator = case
    variances = draw_like(shape, dtype, generator).abs()
    matrix = dense(operator, shape, dtype)
    brute = torch.stack([(matrix @ v.flatten().diag() @ matrix.T).diagonal() for v in variances])
    torch.testing.assert_close(
        operator.squared(variances).flatten(1), brute, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )


@given(measured())
def test_operators_are_linear_and_act_on_each_row_alone(case):
    operator, shape, dtype, generator = case
    x = draw_like(shape, dtype, generator, batch=3)
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(operator(2 * x[:1] - x[1:2]), 2 * operator(x[:1]) - operator(x[1:2]), **close)
    torch.testing.assert_close(operator(x)[1:2], operator(x[1:2]), **close)


@given(measured())
def test_unobserved_measurements_are_those_the_picture_cannot_move(case):
    operator, shape, dtype, _ = case
    moved = dense(operator, shape, dtype).abs().sum(1) > 0
    y = operator(torch.ones(1, *shape, dtype=dtype))
    assert torch.equal(operator.observed(y).flatten(), moved)


@pytest.mark.parametrize("mask", [torch.tensor([[True, False]]), torch.tensor([[1, 0]]), torch.tensor([[1.0, 0.0]])])
def test_masks_may_be_boolean_integer_or_float(mask):
    seen = operators.Inpainting(mask)(torch.full((1, 3, 1, 2), 0.5))
    assert torch.equal(seen, torch.tensor([0.5, 0.0]).expand(1, 3, 1, 2))


def test_moving_changes_dtype_and_nothing_else():
    for operator in (
        operators.Inpainting(torch.tensor([[1.0, 0.0, 0.25]])),
        operators.Linear(torch.ones(2, 3), (1, 3)),
    ):
        x = torch.tensor([[[0.5, -1.0, 2.0]]])
        moved = operator.to(torch.device("cpu"), torch.float64)
        assert moved(x.double()).dtype == torch.float64
        torch.testing.assert_close(moved(x.double()).float(), operator(x))
        assert moved.adjoint(moved(x.double())).shape == x.shape


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(4, 4), "observes nothing"),
        (torch.full((4, 4), 1.5), "within"),
        (torch.full((4, 4), -0.1), "within"),
        (torch.full((4, 4), float("nan")), "finite"),
    ],
)
def test_masks_are_validated(mask, message):
    with pytest.raises(InputError, match=message):
        operators.Inpainting(mask)


@pytest.mark.parametrize("matrix", [torch.ones(3), torch.ones(2, 2, 2), torch.tensor([[1.0, float("inf")]])])
def test_matrices_are_validated(matrix):
    with pytest.raises(InputError, match="matrix"):
        operators.Linear(matrix)
