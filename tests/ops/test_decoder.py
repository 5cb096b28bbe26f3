"""The linear decoder: its adjoint, what it explains, where it is refused, and guidance without gradients."""

import pytest
import torch
from torch.nn import functional as F

from vipaint_ops import FitConfig, NoiseSchedule, Observation, RefineConfig, fit_posterior, operators, sample_posterior
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.inference.corrections import Kalman
from vipaint_ops.inference.decoder import LinearDecoder, linear_decoder
from vipaint_ops.samplers import DPSConfig, dps

SHAPE, FACTOR = (4, 8, 8), 2


class Prior:
    """N(0, 1) latents behind a decoder of 2 x 2 pixels a cell."""

    identity, data_std = "test", 1.0
    device, dtype, latent_shape = torch.device("cpu"), torch.float64, SHAPE
    schedule = NoiseSchedule.scaled_linear(0.0015, 0.0195)

    def denoise(self, z, t):
        level = self.schedule.level(t[0].item())
        return z * level.alpha / (level.alpha**2 + level.sigma**2)

    def decode(self, z0):
        return F.pixel_shuffle(z0, FACTOR)

    def encode(self, x):
        return F.pixel_unshuffle(x, FACTOR)


class Scrambled(Prior):
    """A decoder whose pixels depend on cells far away."""

    def decode(self, z0):
        order = torch.randperm(z0[0].numel(), generator=torch.Generator().manual_seed(0))
        return super().decode(z0.flatten(1)[:, order].view_as(z0))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def observe():
    mask = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    mask[..., 8:] = 0
    return Observation(mask * draw(1, 1, 16, 16), operators.Inpainting(mask), 0.05)


def test_the_adjoint_is_that_of_the_map():
    decoder = LinearDecoder(draw(12, 4, 3, 3), FACTOR)
    v, x = draw(2, *SHAPE, seed=1), draw(2, 3, 16, 16, seed=2)
    products = (decoder.product(v) * x).sum(), (v * decoder.adjoint(x, v)).sum()
    torch.testing.assert_close(*products)


def test_a_linear_decoder_is_found_and_a_scrambled_one_is_refused():
    found = linear_decoder(CountedPrior(Prior()))
    assert found is not None
    v = draw(2, *SHAPE, seed=1)
    torch.testing.assert_close(found.product(v), Prior().decode(v), rtol=0, atol=0.05)
    assert found.explained > 0.99
    assert found.error_variance < 0.01 * found.gain
    assert linear_decoder(CountedPrior(Scrambled())) is None


@pytest.mark.parametrize("covariance", ["tweedie", "isotropic"])
def test_a_linear_decoder_needs_no_gradient(covariance):
    """Known pixels are met; the isotropic covariance is exact here, and takes no products."""
    guidance = Kalman(covariance=covariance, exact_below=0.0)
    posterior = fit_posterior(
        Prior(),
        observe(),
        FitConfig(iterations=0, start_chains=2, start_steps=3, decoder="linear"),
        generator=torch.Generator().manual_seed(0),
    )
    config = RefineConfig(guidance=guidance, decoder="linear", steps=20, attempts=1)
    result = sample_posterior(Prior(), observe(), posterior, 8, config, generator=torch.Generator().manual_seed(1))
    assert result.evaluations.decoder_backward == result.evaluations.denoiser_backward == 0
    assert (result.evaluations.condition_forward == 0) == (covariance == "isotropic")
    residual = observe().residual(result.images)[..., :8]
    assert residual.square().mean().sqrt() < 2 * 0.05
    hidden = result.images[..., 8:]
    assert 0.9 < hidden.std() < 1.1


def test_a_method_with_a_linear_decoder_follows_the_exact_one():
    images = []
    for decoder in ("exact", "linear"):
        config = DPSConfig(steps=20, decoder=decoder)
        result = dps(Prior(), observe(), 2, config, generator=torch.Generator().manual_seed(0))
        images.append(result.images)
        assert (result.evaluations.decoder_backward == 0) == (decoder == "linear")
    torch.testing.assert_close(*images, rtol=0, atol=0.1)
