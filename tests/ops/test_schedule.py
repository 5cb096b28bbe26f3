"""Laws of the noise schedules, against Gaussian conditioning written out with matrices."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vipaint_ops.diffusion.schedule import (
    CLEAN,
    Level,
    NoiseSchedule,
    bridge,
    reverse_kernel,
    reverse_mean,
    same_schedule,
    transition,
)
from vipaint_ops.errors import InputError

SCHEDULES = {
    "vp": NoiseSchedule.scaled_linear(0.0015, 0.0195),
    "vp short": NoiseSchedule.vp([0.1, 0.2, 0.5]),
    "flow": NoiseSchedule.rectified_flow(),
    "flow shifted": NoiseSchedule.rectified_flow(3.0),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
GRID = torch.linspace(0, 1, 257, dtype=torch.float64)

names = st.sampled_from(sorted(SCHEDULES))
times = st.floats(0.01, 0.99)
three_times = st.lists(times, min_size=3, max_size=3, unique_by=lambda t: round(t, 2)).map(sorted)


def conditional(mean: torch.Tensor, covariance: torch.Tensor, observed: torch.Tensor):
    """Mean and variance of the first variable given the others, from their joint Gaussian."""
    weights = torch.linalg.solve(covariance[1:, 1:], covariance[1:, 0])
    return mean[0] + weights @ (observed - mean[1:]), covariance[0, 0] - weights @ covariance[1:, 0]


@every_schedule
def test_signal_falls_and_noise_rises(schedule):
    alpha, sigma, log_snr = schedule.alpha(GRID), schedule.sigma(GRID), schedule.log_snr(GRID)
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() > 0).all()
    assert (log_snr.diff() < 0).all()


def test_variance_is_preserved_and_flow_is_a_straight_line():
    for name, schedule in SCHEDULES.items():
        alpha, sigma = schedule.alpha(GRID), schedule.sigma(GRID)
        total = alpha**2 + sigma**2 if name.startswith("vp") else alpha + sigma
        torch.testing.assert_close(total, torch.ones_like(GRID), rtol=0, atol=1e-12)


def test_vp_steps_are_the_products_of_the_betas():
    betas = torch.linspace(1e-4, 0.02, 50, dtype=torch.float64)
    schedule = NoiseSchedule.vp(betas)
    steps = torch.arange(50, dtype=torch.float64) / 49
    torch.testing.assert_close(schedule.alpha(steps) ** 2, torch.cumprod(1 - betas, 0))


def test_scaled_linear_is_linear_in_the_roots_of_the_betas():
    alpha = SCHEDULES["vp"].alpha(torch.arange(1000, dtype=torch.float64) / 999)
    betas = 1 - (alpha[1:] / alpha[:-1]) ** 2
    torch.testing.assert_close(
        betas.sqrt(), torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64)[1:], rtol=1e-6, atol=0
    )


def test_flow_ends_in_pure_noise_and_starts_clean():
    for name in ("flow", "flow shifted"):
        assert SCHEDULES[name].level(0.0) == CLEAN
        assert SCHEDULES[name].level(1.0) == Level(0.0, 1.0)
    assert SCHEDULES["flow shifted"].sigma(0.5) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))


@given(names, times)
def test_time_at_log_snr_inverts_log_snr(name, t):
    schedule = SCHEDULES[name]
    assert schedule.time_at_log_snr(schedule.log_snr(t)) == pytest.approx(t, abs=1e-9)


@given(names, st.floats(1e-3, 50))
def test_time_at_ratio_has_that_ratio_or_is_an_end(name, ratio):
    schedule = SCHEDULES[name]
    t = schedule.time_at_ratio(ratio)
    reached = schedule.sigma(t) / schedule.alpha(t)
    assert reached == pytest.approx(ratio, rel=1e-6) or (t == 0 and reached > ratio) or (t == 1 and reached < ratio)


@every_schedule
def test_time_at_log_snr_is_clamped_to_the_schedule(schedule):
    assert schedule.time_at_log_snr(math.inf) == pytest.approx(0)
    assert schedule.time_at_log_snr(-math.inf) == pytest.approx(1)
    assert schedule.time_at_log_snr(1e6) == pytest.approx(0)


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_and_floats_agree(schedule, dtype):
    t = torch.linspace(0.05, 0.95, 7, dtype=dtype).view(7, 1)
    for function in (schedule.alpha, schedule.sigma, schedule.log_snr):
        from_tensor = function(t)
        assert from_tensor.shape == t.shape
        assert from_tensor.dtype == dtype
        torch.testing.assert_close(from_tensor, torch.tensor([[function(v.item())] for v in t], dtype=dtype))
    assert schedule.level(0.3) == (schedule.alpha(0.3), schedule.sigma(0.3))


@given(names, three_times)
def test_transitions_compose(name, times):
    e, s, t = map(SCHEDULES[name].level, times)
    first, second, whole = transition(e, s), transition(s, t), transition(e, t)
    assert first.a * second.a == pytest.approx(whole.a)
    assert second.a**2 * first.v + second.v == pytest.approx(whole.v)


@given(names, three_times, st.floats(-3, 3), st.floats(-3, 3))
def test_posterior_is_gaussian_conditioning(name, times, z0, zt):
    s, t = SCHEDULES[name].level(times[0]), SCHEDULES[name].level(times[2])
    a, v = transition(s, t)
    mean = torch.tensor([s.alpha * z0, t.alpha * z0], dtype=torch.float64)
    cross = a * s.sigma**2
    joint = torch.tensor([[s.sigma**2, cross], [cross, a**2 * s.sigma**2 + v]], dtype=torch.float64)
    expected_mean, expected_variance = conditional(mean, joint, torch.tensor([zt], dtype=torch.float64))
    law = reverse_kernel(s, t)
    assert law.on_z * zt + law.on_z0 * z0 == pytest.approx(expected_mean.item(), abs=1e-9)
    assert law.variance == pytest.approx(expected_variance.item(), abs=1e-9)


@given(names, three_times)
def test_bridge_is_gaussian_conditioning(name, times):
    e, s, t = map(SCHEDULES[name].level, times)
    first, second = transition(e, s), transition(s, t)
    prior = torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 1.0]], dtype=torch.float64)  # z_e ~ N(0, 1) as the third
    a = first.a
    z_s = a**2 + first.v
    prior[0, 0], prior[1, 1] = z_s, second.a**2 * z_s + second.v
    prior[0, 1] = prior[1, 0] = second.a * z_s
    prior[0, 2] = prior[2, 0] = a
    prior[1, 2] = prior[2, 1] = second.a * a
    law = bridge(e, s, t)
    for z_t, z_e in ((1.0, 0.0), (0.0, 1.0)):
        mean, variance = conditional(torch.zeros(3).double(), prior, torch.tensor([z_t, z_e]).double())
        assert law.on_z * z_t + law.on_z0 * z_e == pytest.approx(mean.item(), rel=1e-5, abs=1e-7)
        assert law.variance == pytest.approx(variance.item(), rel=1e-5, abs=1e-7)


@given(names, three_times)
def test_bridge_from_the_clean_latent_is_the_posterior(name, times):
    _, s, t = map(SCHEDULES[name].level, times)
    assert bridge(CLEAN, s, t) == pytest.approx(reverse_kernel(s, t))


@given(names, three_times)
def test_ancestral_reverse_step_is_the_posterior(name, times):
    s, t = SCHEDULES[name].level(times[0]), SCHEDULES[name].level(times[2])
    z, z0 = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, variance = reverse_mean(z, z0, s, t)
    law = reverse_kernel(s, t)
    assert variance == law.variance
    torch.testing.assert_close(mean, law.on_z * z + law.on_z0 * z0)


@given(names, three_times, st.floats(0, 4))
def test_reverse_step_keeps_the_marginal_for_any_eta(name, times, eta):
    """With the true z_0 as prediction, z_t ~ N(alpha_t z_0, sigma_t^2) must become N(alpha_s z_0, sigma_s^2)."""
    s, t = SCHEDULES[name].level(times[0]), SCHEDULES[name].level(times[2])
    z0 = torch.tensor([0.7], dtype=torch.float64)
    centre, variance = reverse_mean(t.alpha * z0, z0, s, t, eta)
    shifted, _ = reverse_mean(t.alpha * z0 + t.sigma, z0, s, t, eta)
    torch.testing.assert_close(centre, s.alpha * z0)
    assert ((shifted - centre) ** 2).item() + variance == pytest.approx(s.sigma**2, abs=1e-12)


@given(three_times, st.floats(-2, 2), st.floats(-2, 2))
def test_flow_and_vp_are_the_same_process_after_rescaling(times, z, z0):
    """Levels of equal SNR differ by a scale of z only, so the laws of z_s given z_t and z_0 differ by it too."""
    flow = SCHEDULES["flow shifted"]
    s, t = flow.level(times[0]), flow.level(times[2])
    scale_s, scale_t = math.hypot(*s), math.hypot(*t)
    vp_s, vp_t = Level(s.alpha / scale_s, s.sigma / scale_s), Level(t.alpha / scale_t, t.sigma / scale_t)
    in_flow, in_vp = reverse_kernel(s, t), reverse_kernel(vp_s, vp_t)
    assert in_flow.on_z * z + in_flow.on_z0 * z0 == pytest.approx(
        scale_s * (in_vp.on_z * z / scale_t + in_vp.on_z0 * z0), abs=1e-9
    )
    assert in_flow.variance == pytest.approx(scale_s**2 * in_vp.variance)


def test_step_from_pure_noise_forgets_it():
    """At alpha_t = 0 the posterior is the marginal of z_s: nothing of z_t is left in it."""
    s, t = Level(0.6, 0.4), Level(0.0, 1.0)
    assert reverse_kernel(s, t) == (0.0, 0.6, pytest.approx(0.4**2))


def test_descriptions_tell_schedules_apart():
    descriptions = [schedule.description for schedule in SCHEDULES.values()]
    assert len(set(descriptions)) == len(descriptions)
    assert NoiseSchedule.scaled_linear(0.0015, 0.0195).description == SCHEDULES["vp"].description


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("vp 1000 6.50079 -2.1 -9.2", "vp 6.50009 -2.1001 -9.2", True),
        ("vp 1000 6.50079 -2.1 -9.2", "vp 6.49 -2.1 -9.2", False),
        ("vp 500 6.50079 -2.1 -9.2", "vp 6.50079 -2.1 -9.2", False),
        ("vp 1000 6.50079 -2.1 -9.2", "vp nan -2.1 -9.2", False),
        ("vp 1000 6.50079 -2.1 -9.2", "vp 1000 a b c", False),
        ("flow 3", "flow 3", True),
        ("flow 3", "flow 3.0001", False),
        ("", "", True),
        ("", "vp", False),
    ],
)
def test_descriptions_of_one_schedule_by_the_library_and_by_comfyui_are_the_same(one, other, same):
    assert same_schedule(one, other) == same_schedule(other, one) == same


@pytest.mark.parametrize("betas", [[0.1], [0.1, 0.0], [0.1, 1.0], [0.1, float("nan")], [[0.1, 0.2]]])
def test_betas_are_validated(betas):
    with pytest.raises(InputError, match="betas"):
        NoiseSchedule.vp(betas)


@pytest.mark.parametrize("shift", [0.0, -1.0, math.nan, math.inf])
def test_shift_is_validated(shift):
    with pytest.raises(InputError, match=f"got {shift}"):
        NoiseSchedule.rectified_flow(shift)
