"""The host's noise schedules: against their formulas, there and back, and on a device without float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.nodes.pack import load
from tests.ops.no_float64 import DEVICE, no_float64, on_device

HostSchedule = load("nodes.host.schedule").HostSchedule
InputError = load("vipaint_ops.errors").InputError

TIMES = (0.0, 0.0004, 0.3, 0.55, 0.9996, 1.0)


class Prediction:
    """Noise prediction with Stable Diffusion's betas, as the host does it: log sigma linear between its steps."""

    def __init__(self):
        abar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
        self.log_sigmas = np.log((1 - abar) / abar) / 2

    def noise_scaling(self, sigma, noise, latent):
        return latent + noise * sigma

    def percent_to_sigma(self, percent):
        return float(np.exp(np.interp(999 * (1 - percent), np.arange(1000), self.log_sigmas)))


class Flow:
    """Rectified flow with the shift of Stable Diffusion 3."""

    def noise_scaling(self, sigma, noise, latent):
        return sigma * noise + (1 - sigma) * latent

    def percent_to_sigma(self, percent):
        t = 1 - percent
        return 3 * t / (1 + 2 * t)


class Backwards(Flow):
    def percent_to_sigma(self, percent):
        return percent


# The host's classes inherit from the one that names their kind.
KINDS = [type(kind.__name__, (kind,), {}) for kind in (Prediction, Flow)]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param()


@pytest.fixture
def schedule(kind):
    return HostSchedule(kind)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.55, 1.0])
def test_to_host_gives_the_hosts_sigma_and_latent(kind, schedule, t):
    z, time = torch.tensor([[1.0, -2.0]]), torch.tensor([t])
    x, sigma = schedule.to_host(z, time)
    expected = kind.percent_to_sigma(1 - min(max(t, 1e-6), 1 - 1e-6))
    assert sigma.item() == pytest.approx(expected, rel=1e-3)
    noisy = kind.noise_scaling(sigma, torch.full((1,), 0.5), torch.ones(1))
    ours = schedule.alpha(time) + 0.5 * schedule.sigma(time)
    torch.testing.assert_close(ours * (x / z)[:, 0], noisy)


@pytest.mark.parametrize("t", TIMES)
def test_times_are_found_again(schedule, t):
    assert schedule.time_at_log_snr(schedule.log_snr(t)) == pytest.approx(t, abs=1e-9)


def test_times_outside_the_range_are_clamped(schedule):
    assert schedule.time_at_log_snr(1e4) == 0
    assert schedule.time_at_log_snr(-1e4) == 1
    assert schedule.alpha(-1.0) == schedule.alpha(0.0)
    assert schedule.alpha(2.0) == schedule.alpha(1.0)


def test_sigmas_of_the_host_are_found_again(kind, schedule):
    for t in TIMES[1:-1]:
        sigma = kind.percent_to_sigma(1 - t)
        _, found = schedule.to_host(torch.ones(1), torch.tensor([schedule.time_at_host(sigma)]))
        assert found.item() == pytest.approx(sigma, rel=1e-5)


def test_a_shape_of_times_is_kept(schedule):
    assert schedule.alpha(torch.full((2, 3), 0.5)).shape == (2, 3)
    assert schedule.alpha(torch.tensor(0.5)).shape == ()


def test_noise_that_does_not_increase_with_time_is_refused():
    with pytest.raises(InputError, match="does not increase with time"):
        HostSchedule(type("Backwards", (Backwards,), {})())


def test_a_device_without_float64_is_enough(schedule):
    z, t = torch.randn(2, 4, 8, 8), torch.tensor([0.3, 0.8])
    expected = schedule.to_host(z, t)
    with no_float64():
        found = schedule.to_host(on_device(z), on_device(t))
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.device == DEVICE
            torch.testing.assert_close(ours.cpu(), theirs)
