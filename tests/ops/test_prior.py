"""What a counted prior counts, and that checkpointing changes memory only."""

import pytest
import torch
from torch import Tensor, nn

from vipaint_ops.diffusion.prior import CountedPrior, Evaluations
from vipaint_ops.diffusion.schedule import NoiseSchedule


class TinyPrior:
    """A frozen two-layer network as denoiser, and a decoder that is a network or the identity."""

    schedule = NoiseSchedule.rectified_flow()
    latent_shape = (6,)
    identity = "tiny"
    data_std = 1.0
    device = torch.device("cpu")
    dtype = torch.float64

    def __init__(self, identity_decoder: bool = False):
        torch.manual_seed(0)
        self.denoiser = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 6)).double().requires_grad_(False)
        self.decoder = nn.Identity() if identity_decoder else nn.Linear(6, 4).double().requires_grad_(False)
        self.calls = 0

    def denoise(self, z: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.denoiser(torch.cat([z, t[:, None]], 1))

    def decode(self, z0: Tensor) -> Tensor:
        return self.decoder(z0)

    def encode(self, x: Tensor) -> Tensor:
        return x


def latents(rows: int) -> Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()


def test_forward_rows_are_counted_without_gradients():
    prior = CountedPrior(TinyPrior())
    with torch.no_grad():
        prior.decode(prior.denoise(latents(5), 0.5))
    prior.denoise(latents(3).detach(), 0.5)
    assert prior.evaluations == Evaluations(denoiser_forward=8, decoder_forward=5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("identity_decoder", [False, True])
def test_backward_rows_are_counted_once_for_every_pass_through_a_network(checkpointing, identity_decoder):
    prior = CountedPrior(TinyPrior(identity_decoder), checkpointing)
    z = latents(4)
    prediction = prior.denoise(z, 0.5)
    picture = prior.decode(prediction)
    torch.autograd.grad(picture.sum(), z, retain_graph=True)
    assert prior.evaluations == Evaluations(4, 4, 4, 4)
    torch.autograd.grad(prediction.sum(), z, retain_graph=True)
    assert prior.evaluations == Evaluations(4, 8, 4, 4)
    torch.autograd.grad(picture.sum(), z)
    assert prior.evaluations == Evaluations(4, 12, 4, 8)


def test_a_leaf_decoded_twice_counts_each_pass_once():
    prior = CountedPrior(TinyPrior(identity_decoder=True))
    z0 = latents(4)
    for _ in range(2):
        torch.autograd.grad(prior.decode(z0).sum(), z0)
    assert prior.evaluations == Evaluations(decoder_forward=8, decoder_backward=8)


def test_a_graph_that_is_not_differentiated_costs_no_backward_rows():
    prior = CountedPrior(TinyPrior())
    prior.decode(prior.denoise(latents(4), 0.5))
    assert prior.evaluations == Evaluations(denoiser_forward=4, decoder_forward=4)


def test_checkpointing_recomputes_and_gives_the_same_gradient():
    gradients, calls = [], []
    for checkpointing in (False, True):
        inner, z = TinyPrior(), latents(4)
        prior = CountedPrior(inner, checkpointing)
        picture = prior.decode(prior.denoise(z, 0.3))
        gradients.append(torch.autograd.grad((picture**3).sum(), z)[0])
        calls.append(inner.calls)
    assert torch.equal(*gradients)
    assert calls == [1, 2]


def test_one_time_serves_the_whole_batch():
    inner, z = TinyPrior(), latents(3)
    torch.testing.assert_close(CountedPrior(inner).denoise(z, 0.3), inner.denoise(z, torch.full((3,), 0.3).double()))


def test_a_counted_prior_speaks_for_the_one_it_counts():
    inner = TinyPrior()
    prior = CountedPrior(inner)
    for name in ("schedule", "latent_shape", "identity", "data_std", "device", "dtype"):
        assert getattr(prior, name) == getattr(inner, name)


def test_evaluations_add_up():
    total = Evaluations(1, 2, 3, 4) + Evaluations(10, 20, 30, 40)
    assert total == Evaluations(11, 22, 33, 44)
    assert total.denoiser == 33
