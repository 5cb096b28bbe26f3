"""PSLD: the gluing term, and the gradient of it through the encoder."""

import pytest
import torch

from tests.ops.gaussian_chain import DOUBLE, VP, draw, gaussian
from vipaint_ops import InputError, Observation, operators
from vipaint_ops.diffusion.schedule import reverse_mean
from vipaint_ops.measurement.likelihood import StudentT
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.samplers import PSLDConfig, psld
from vipaint_ops.samplers.gradient_step import relative_length
from vipaint_ops.samplers.psld import PUBLISHED_SIZE, PUBLISHED_STEPS

SHAPE = (1, 2, 4)
BOTH = torch.eye(8, dtype=DOUBLE) + 0.3 * draw(8, 8, seed=7), torch.eye(8, dtype=DOUBLE) + 0.3 * draw(8, 8, seed=8)


class LinearAutoencoder(GaussianMixturePrior):
    """A decoder and an encoder that are not each other's inverse, and a record of where the denoiser was asked."""

    def __init__(self, plain):
        super().__init__(plain.weights, plain.means, plain.covariances, plain.schedule)
        self.data_std, self.asked = 1.0, []

    def denoise(self, z, t):
        self.asked.append(z.detach())
        return super().denoise(z, t)

    def decode(self, z0):
        return (z0.flatten(1) @ BOTH[0]).view(-1, *SHAPE)

    def encode(self, x):
        return (x.flatten(1) @ BOTH[1]).view(-1, *SHAPE)


@pytest.mark.parametrize("lengths", [(0.0, 2.0), (3.0, 0.0), (3.0, 2.0)], ids=["gluing", "residual", "both"])
def test_a_step_is_that_of_the_paper(lengths):
    """With A = diag(m) written out: E(m y + (1 - m) D(zh))."""
    mask = torch.tensor((0.0, 1.0), dtype=DOUBLE).repeat(2, 2)
    observation = Observation(mask * draw(1, *SHAPE, seed=4), operators.Inpainting(mask), 0.1)
    prior, noise, times = LinearAutoencoder(gaussian(VP, SHAPE)), draw(1, *SHAPE, seed=5), (0.6, 0.4)
    scale = relative_length(prior, 2, PUBLISHED_SIZE, PUBLISHED_STEPS)
    omega, gamma = (length / scale for length in lengths)
    settings = PSLDConfig(times=times, omega=omega, gamma=gamma)
    psld(prior, observation, 1, settings, generator=torch.Generator().manual_seed(0), noise=noise)
    start, after = prior.asked

    z = start.clone().requires_grad_()
    z0 = prior.denoise(z, torch.tensor([0.6], dtype=DOUBLE))
    picture = prior.decode(z0)
    glued = prior.encode(mask * observation.y + (1 - mask**2) * picture)
    residual = torch.where(mask > 0, observation.y - mask * picture, 0.0)
    loss = lengths[0] * residual.norm() + lengths[1] * (z0 - glued).norm()
    (gradient,) = torch.autograd.grad(loss, z)
    expected, _ = reverse_mean(start, z0.detach(), VP.level(0.4), VP.level(0.6), eta=0.0)
    torch.testing.assert_close(after, expected - gradient)


def test_noise_that_is_not_gaussian_is_refused():
    observation = Observation(draw(1, *SHAPE, seed=4), operators.Inpainting(torch.ones(2, 4)), 0.1, StudentT())
    with pytest.raises(InputError, match="PSLD"):
        psld(gaussian(VP, SHAPE), observation, 1, generator=torch.Generator())
