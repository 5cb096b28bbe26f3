"""An observation's likelihood, against torch's own distributions."""

import pytest
import torch
from torch.distributions import Normal

from vipaint_ops import operators
from vipaint_ops.errors import InputError
from vipaint_ops.measurement.observation import Observation


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hole(height: int = 4, width: int = 6) -> torch.Tensor:
    mask = torch.ones(height, width, dtype=torch.float64)
    mask[:, width // 2 :] = 0
    return mask


def test_log_likelihood_is_the_normal_density_of_what_is_seen():
    mask, x = hole(), draw(3, 2, 4, 6, seed=1)
    observation = Observation(mask * draw(1, 2, 4, 6), operators.Inpainting(mask), 0.3)
    density = Normal(x, 0.3).log_prob(observation.y)[:, :, mask > 0]
    torch.testing.assert_close(observation.log_likelihood(x), density.sum((1, 2)))


def test_log_likelihood_of_a_matrix_is_the_normal_density_of_its_product():
    matrix, x = draw(5, 8), draw(3, 2, 4, seed=1)
    observation = Observation(draw(1, 5, seed=2), operators.Linear(matrix), 0.1)
    expected = Normal(x.flatten(1) @ matrix.T, 0.1).log_prob(observation.y).sum(1)
    torch.testing.assert_close(observation.log_likelihood(x), expected)


@pytest.mark.parametrize("variance_shape", [(3, 2, 4, 6), (3, 1, 1, 1), (1, 2, 4, 6), (1, 1, 1, 1), (4, 6)])
def test_picture_variance_widens_the_density_through_the_operator(variance_shape):
    mask, x = hole(), draw(3, 2, 4, 6, seed=1)
    variance = draw(*variance_shape, seed=2).abs()
    observation = Observation(mask * draw(1, 2, 4, 6), operators.Inpainting(mask), 0.3)
    spread = (0.3**2 + mask * variance.expand(3, 2, 4, 6)).sqrt()
    density = Normal(mask * x, spread).log_prob(observation.y)[:, :, mask > 0]
    torch.testing.assert_close(observation.log_likelihood(x, variance), density.sum((1, 2)))


def test_picture_variance_of_a_matrix_is_its_marginal_density():
    """With y = A x + n and x ~ N(m, diag(v)), each measurement alone is N((A m)_i, (A diag(v) A^T)_ii + noise^2)."""
    matrix, mean, variance = draw(5, 8), draw(1, 8, seed=1), draw(1, 8, seed=2).abs()
    observation = Observation(draw(1, 5, seed=3), operators.Linear(matrix), 0.2)
    spread = (matrix @ variance[0].diag() @ matrix.T).diagonal() + 0.2**2
    expected = Normal(mean @ matrix.T, spread.sqrt()).log_prob(observation.y).sum(1)
    torch.testing.assert_close(observation.log_likelihood(mean, variance), expected)


def test_the_hole_is_ignored():
    mask, x = hole(), draw(2, 1, 4, 6, seed=1)
    y = mask * draw(1, 1, 4, 6)
    observation = Observation(y, operators.Inpainting(mask), 0.1)
    elsewhere = Observation(y + (1 - mask) * 7.0, operators.Inpainting(mask), 0.1)
    changed = x + (1 - mask) * draw(2, 1, 4, 6, seed=3)
    for same in (observation.log_likelihood(changed), elsewhere.log_likelihood(x)):
        assert torch.equal(same, observation.log_likelihood(x))
    assert (observation.residual(changed)[..., 3:] == 0).all()
    assert (elsewhere.residual(x)[..., 3:] == 0).all()


def test_the_gradient_of_the_likelihood_is_the_adjoint_of_the_weighted_residual():
    matrix, x = draw(5, 8), draw(2, 8, seed=1).requires_grad_()
    observation = Observation(draw(1, 5, seed=2), operators.Linear(matrix), 0.1)
    (gradient,) = torch.autograd.grad(observation.log_likelihood(x).sum(), x)
    torch.testing.assert_close(gradient, observation.operator.adjoint(observation.residual(x.detach()) / 0.1**2))


def test_moving_keeps_the_observation():
    mask = hole()
    observation = Observation(mask * draw(1, 1, 4, 6), operators.Inpainting(mask), 0.1)
    moved = observation.to(torch.device("cpu"), torch.float32)
    x = draw(2, 1, 4, 6, seed=1)
    assert moved.y.dtype == torch.float32
    assert moved.noise_std == observation.noise_std
    torch.testing.assert_close(
        moved.log_likelihood(x.float()).double(), observation.log_likelihood(x), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize(
    ("y", "noise_std", "message"),
    [
        (torch.zeros(2, 1, 4, 6), 0.1, "2 observations"),
        (torch.full((1, 1, 4, 6), float("nan")), 0.1, "NaN"),
        (torch.full((1, 1, 4, 6), float("inf")), 0.1, "infinite"),
        (torch.zeros(1, 1, 4, 6), 0.0, "noise_std is 0.0"),
        (torch.zeros(1, 1, 4, 6), -1.0, "noise_std is -1.0"),
        (torch.zeros(1, 1, 4, 6), float("nan"), "noise_std is nan"),
        (torch.zeros(1, 1, 4, 6), float("inf"), "noise_std is inf"),
        (torch.zeros(1, 1, 4, 6), 1e200, r"noise_std is 1e\+200; it must be positive and at most 1e\+18"),
    ],
)
def test_bad_observations_are_refused(y, noise_std, message):
    with pytest.raises(InputError, match=message):
        Observation(y, operators.Inpainting(hole()), noise_std)


@pytest.mark.parametrize("mask_shape", [(4, 5), (3, 4, 6), (1, 1, 6, 4), (5, 1, 4, 6), (1, 1, 1, 4, 6)])
def test_a_mask_of_another_shape_than_the_picture_is_refused(mask_shape):
    with pytest.raises(InputError, match="both need the same height and width"):
        Observation(torch.zeros(1, 1, 4, 6), operators.Inpainting(torch.ones(mask_shape)), 0.1)


@pytest.mark.parametrize("mask_shape", [(4, 6), (1, 4, 6), (3, 4, 6), (1, 1, 4, 6), (1, 6), ()])
def test_masks_that_broadcast_are_accepted(mask_shape):
    observation = Observation(torch.zeros(1, 3, 4, 6), operators.Inpainting(torch.ones(mask_shape)), 0.1)
    assert observation.observed.shape == (1, 3, 4, 6)
    assert observation.observed.all()
