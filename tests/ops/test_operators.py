"""The laws every measurement operator obeys."""

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.operator_cases import BLURS, CHAINS, CPU, EXACT, dense, inner, measured, normal, norms
from vipaint_ops import Observation, operators
from vipaint_ops.errors import InputError

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


@given(measured(dtypes=(torch.float32, torch.float64, torch.bfloat16)))
def test_adjoint_law(case):
    x = case.draw()
    seen = case.operator(x)
    y = normal(seen.shape, case.generator, case.dtype)
    back = case.operator.adjoint(y)
    assert seen.dtype == back.dtype == case.dtype
    assert back.shape == x.shape
    allowed = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2}[case.dtype]
    scale = torch.maximum(norms(seen) * norms(y), norms(x) * norms(back))
    assert (inner(seen, y) - inner(x, back)).abs().le(allowed * scale).all()


@given(measured())
def test_gradients_are_the_adjoint_and_back(case):
    x = case.draw().requires_grad_()
    seen = case.operator(x)
    y = normal(seen.shape, case.generator, case.dtype).requires_grad_()
    close = {"rtol": TOLERANCE[case.dtype], "atol": TOLERANCE[case.dtype]}
    back = case.operator.adjoint(y)
    torch.testing.assert_close(torch.autograd.grad(seen, x, y.detach())[0], back.detach(), **close)
    torch.testing.assert_close(torch.autograd.grad(back, y, x.detach())[0], seen.detach(), **close)


@given(measured(kinds=EXACT))
def test_pseudo_inverse_is_the_one_of_the_matrix(case):
    operator = case.operator.to(CPU, torch.float64)
    matrix = dense(operator, case.shape, torch.float64)
    y = operator(case.draw().double())
    noisy = y + normal(y.shape, case.generator, torch.float64)
    torch.testing.assert_close(operator(operator.pinv(y)), y, rtol=1e-6, atol=1e-7)
    expected = noisy.flatten(1) @ torch.linalg.pinv(matrix).T
    torch.testing.assert_close(operator.pinv(noisy).flatten(1), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=30)
@given(measured(kinds=BLURS + CHAINS))
def test_what_is_seen_of_the_iterative_pseudo_inverse_is_what_was_seen(case):
    y = case.operator(case.draw())
    assert (norms(case.operator(case.operator.pinv(y)) - y) <= 1e-2 * norms(y)).all()


@given(measured(kinds=EXACT))
def test_squared_is_the_diagonal_of_the_seen_covariance(case):
    variances = case.draw().abs()
    matrix = dense(case.operator, case.shape, case.dtype)
    brute = torch.stack([(matrix @ v.flatten().diag() @ matrix.T).diagonal() for v in variances])
    torch.testing.assert_close(
        case.operator.squared(variances).flatten(1), brute, rtol=TOLERANCE[case.dtype], atol=TOLERANCE[case.dtype]
    )


@given(measured())
def test_operators_are_linear_and_act_on_each_row_alone(case):
    operator, x = case.operator, case.draw(3)
    close = {"rtol": TOLERANCE[case.dtype], "atol": TOLERANCE[case.dtype]}
    torch.testing.assert_close(operator(2 * x[:1] - x[1:2]), 2 * operator(x[:1]) - operator(x[1:2]), **close)
    torch.testing.assert_close(operator(x)[1:2], operator(x[1:2]), **close)


@given(measured(kinds=EXACT))
def test_a_row_is_inverted_alone(case):
    y = case.operator(case.draw(3))
    close = {"rtol": TOLERANCE[case.dtype], "atol": TOLERANCE[case.dtype]}
    torch.testing.assert_close(case.operator.pinv(y)[1:2], case.operator.pinv(y[1:2]), **close)


@given(measured())
def test_unobserved_measurements_are_those_the_picture_cannot_move(case):
    moved = dense(case.operator, case.shape, case.dtype).abs().sum(1) > 0
    y = case.operator(torch.ones(1, *case.shape, dtype=case.dtype))
    assert torch.equal(case.operator.observed(y).flatten(), moved)


@given(measured())
def test_the_size_of_the_picture_follows_from_that_of_the_measurements(case):
    seen = case.operator(case.draw())
    if len(case.shape) > 1:
        assert tuple(case.operator.picture_size(seen.shape[-2:])) == case.shape[-2:]


@given(measured())
def test_moving_changes_dtype_and_nothing_else(case):
    x = case.draw()
    moved = case.operator.to(CPU, torch.float64)
    assert type(moved) is type(case.operator)
    assert moved(x.double()).dtype == torch.float64
    torch.testing.assert_close(moved(x.double()).to(case.dtype), case.operator(x), rtol=1e-4, atol=1e-5)
    assert moved.adjoint(moved(x.double())).shape == x.shape


@pytest.mark.parametrize("mask", [torch.tensor([[True, False]]), torch.tensor([[1, 0]]), torch.tensor([[1.0, 0.0]])])
def test_masks_may_be_boolean_integer_or_float(mask):
    seen = operators.Inpainting(mask)(torch.full((1, 3, 1, 2), 0.5))
    assert torch.equal(seen, torch.tensor([0.5, 0.0]).expand(1, 3, 1, 2))


def test_every_picture_of_a_batch_may_have_its_mask():
    masks = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(2, 1, 1, 2)
    operator, x = operators.Inpainting(masks), torch.ones(2, 3, 1, 2)
    assert torch.equal(operator(x), masks.expand(2, 3, 1, 2))
    assert torch.equal(operator.pinv(operator(x)), masks.expand(2, 3, 1, 2))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(4, 4), "observes nothing"),
        (torch.full((4, 4), 255.0), "255"),
        (torch.full((4, 4), -1.0), "from 0"),
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


@given(measured())
def test_an_operator_describes_itself_whatever_its_dtype(case):
    described = case.operator.description
    assert case.operator.to(CPU, torch.float64).to(CPU, torch.float32).description == described
    assert case.operator.to(CPU, torch.float64).description == case.operator.to(CPU, torch.float32).description


def test_other_operators_have_other_descriptions():
    picture = torch.ones(1, 3, 64, 64)
    several = [
        operators.GaussianBlur(31, 3.0),
        operators.GaussianBlur(31, 5.0),
        operators.MotionBlur(31, 0.0),
        operators.MotionBlur(31, 45.0),
        operators.SuperResolution(2),
        operators.SuperResolution(2, "average"),
        operators.SuperResolution(4),
        operators.Grey(),
        operators.Crop(32, 64),
        operators.Crop(64, 32),
        operators.Inpainting(picture[:, :1]),
        operators.Inpainting(picture[:, :1].triu()),
        operators.Compose(operators.Grey(), operators.SuperResolution(2)),
        operators.Compose(operators.SuperResolution(2), operators.Grey()),
    ]
    assert len({operator.description for operator in several}) == len(several)


def test_measurements_of_another_operator_are_another_observation():
    y = torch.zeros(1, 3, 64, 64)
    narrow, wide = (Observation(y, operators.GaussianBlur(31, std), 0.05) for std in (3.0, 5.0))
    assert narrow.digest != wide.digest
    assert narrow.digest == Observation(y, operators.GaussianBlur(31, 3.0), 0.1).digest


@given(measured())
def test_use_changes_neither_the_description_nor_the_digest(case):
    x = case.draw(1)
    y = case.operator(x)
    observation = Observation(y, case.operator, 0.1)
    before = case.operator.description, observation.digest
    case.operator.squared(x.abs()), case.operator.pinv(y), case.operator.adjoint(y)
    assert (case.operator.description, observation.digest) == before


@given(measured(), st.lists(st.sampled_from([0, 1, 2, 3, 7, 12]), max_size=5))
def test_a_tensor_of_another_size_is_refused_or_keeps_its_batch(case, shape):
    """Never another exception, never a measurement made of another batch by broadcasting."""
    wrong = torch.ones(shape, dtype=case.dtype)
    for method in (case.operator, case.operator.adjoint, case.operator.pinv, case.operator.squared):
        try:
            out = method(wrong)
        except InputError:
            continue
        assert out.shape[0] == shape[0]
        assert out.numel() > 0


@given(measured(), st.lists(st.sampled_from([0, 1, 2, 3, 7, 12]), max_size=5))
def test_an_observation_refuses_pictures_and_measurements_of_another_size(case, shape):
    y = case.operator(case.draw(1))
    if list(y.shape[1:]) != shape:
        wrong = torch.ones(shape, dtype=case.dtype)
        with contextlib.suppress(InputError):
            assert Observation(y, case.operator, 0.1).residual(wrong).shape[1:] == y.shape[1:]
    with contextlib.suppress(InputError):
        Observation(torch.ones(shape, dtype=case.dtype), case.operator, 0.1)
