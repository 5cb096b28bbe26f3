"""Blurs: the definitions of their kernels, the reflected border, and agreement with plain summing."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from kornia.filters import filter2d, gaussian_blur2d

from tests.ops.operator_cases import dense, measured
from vipaint_ops.errors import InputError
from vipaint_ops.operators import Blur, GaussianBlur, MotionBlur

DOUBLE = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=seeded(seed), dtype=DOUBLE).to(dtype)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 9), st.integers(0, 9))
def test_blurs_sum_the_reflected_picture_at_every_kernel_size(rows, columns, more_rows, more_columns):
    kernel = picture(2 * rows + 1, 2 * columns + 1, seed=1)
    x = picture(2, 3, 2 * rows + 1 + more_rows, 2 * columns + 1 + more_columns)
    padded = F.pad(x, (columns, columns, rows, rows), mode="reflect").flatten(0, 1)[:, None]
    summed = F.conv2d(padded, kernel.flip(0, 1)[None, None]).view_as(x)
    torch.testing.assert_close(Blur(kernel)(x), summed, rtol=1e-4, atol=1e-4 * kernel.numel() ** 0.5)


@pytest.mark.parametrize("size", [3, 5, 11, 31])
def test_blurs_agree_with_kornia(size):
    kernel, x = picture(size, size, seed=1).abs(), picture(2, 3, 40, 33)
    kernel = kernel / kernel.sum()
    torch.testing.assert_close(Blur(kernel)(x), filter2d(x, kernel.flip(0, 1)[None]), rtol=1e-5, atol=1e-5)


def test_a_bright_point_becomes_the_kernel():
    kernel, x = picture(5, 7, seed=1), torch.zeros(1, 1, 15, 17)
    x[..., 7, 8] = 1
    seen = Blur(kernel)(x)
    torch.testing.assert_close(seen[0, 0, 5:10, 5:12], kernel, rtol=1e-5, atol=1e-6)
    assert seen.abs().sum() == pytest.approx(kernel.abs().sum().item(), rel=1e-4)


def test_zero_margins_of_a_kernel_change_nothing():
    kernel, x = picture(5, 3, seed=1), picture(1, 3, 20, 20)
    wide = F.pad(kernel, (6, 6, 2, 2))
    assert torch.equal(Blur(wide)(x), Blur(kernel)(x))
    off_centre = torch.zeros(5, 5)
    off_centre[0, 4] = 1
    torch.testing.assert_close(Blur(off_centre)(x)[..., :-2, 2:], x[..., 2:, :-2], rtol=1e-5, atol=1e-5)


@given(measured(kinds=("blur", "gaussian", "motion", "shake", "grey, blur")))
def test_squared_is_exact_inside_and_between_a_quarter_and_all_at_the_edge(case):
    variances = case.draw(1).abs()
    matrix = dense(case.operator, case.shape, case.dtype)
    brute = (matrix**2 @ variances.flatten()).view(case.operator(variances).shape)
    found = case.operator.squared(variances)
    inside = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(found[inside], brute[inside], rtol=1e-4, atol=1e-5)
    operator = case.operator
    if isinstance(operator, Blur) and (operator.kernel >= 0).all():
        assert (found <= brute + 1e-5).all()
        assert (found >= brute / 4 - 1e-5).all()


def test_variances_seen_through_a_blur_are_never_negative():
    variances = torch.zeros(1, 1, 40, 40)
    variances[..., 3, 3] = 1
    assert (GaussianBlur(13, 1.0).squared(variances) >= 0).all()


def test_bfloat16_is_summed_in_float32():
    x = picture(1, 3, 64, 64)
    blur = GaussianBlur().to(torch.device("cpu"), torch.bfloat16)
    assert blur.kernel.dtype == torch.float32
    seen = blur(x.bfloat16())
    assert seen.dtype == torch.bfloat16
    torch.testing.assert_close(seen, GaussianBlur()(x.bfloat16().float()).bfloat16())


def test_the_default_is_the_gaussian_of_the_literature():
    kernel = GaussianBlur().kernel
    assert kernel.shape == (61, 61)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-14)
    support = kernel[30] > 0
    assert support.nonzero().flatten().tolist() == list(range(18, 43))
    assert torch.equal(kernel > 0, support[:, None] & support[None])
    for d in range(13):
        assert (kernel[30, 30 + d] / kernel[30, 30]).item() == pytest.approx(math.exp(-(d**2) / 18), rel=1e-12)


@pytest.mark.parametrize(("size", "std"), [(25, 3.0), (9, 3.0), (5, 0.7)])
def test_gaussian_blur_agrees_with_kornia_on_the_same_support(size, std):
    x = picture(1, 3, 32, 48)
    torch.testing.assert_close(
        GaussianBlur(size, std)(x), gaussian_blur2d(x, (size, size), (std, std)), rtol=1e-4, atol=1e-4
    )


def test_straight_motion_is_a_line_through_the_centre():
    level = MotionBlur(61, 0.0).kernel
    row = torch.full((61,), 1 / 60, dtype=DOUBLE)
    row[[0, -1]] /= 2
    torch.testing.assert_close(level[30], row)
    assert level.sum().item() == pytest.approx(1)
    torch.testing.assert_close(MotionBlur(61, 90.0).kernel, level.T)
    steep = MotionBlur(31, 60.0).kernel
    assert steep[:15, 16:].sum() > 0.4, "60 degrees is up and to the right"
    assert steep[16:, 16:].sum() < 0.01
    torch.testing.assert_close(steep, steep.flip(0, 1))
    torch.testing.assert_close(MotionBlur(31, 240.0).kernel, steep)
    assert MotionBlur(1, 20.0).kernel.tolist() == [[1.0]]


@given(st.integers(1, 30), st.floats(-360, 360))
def test_a_line_at_any_angle_has_its_length(radius, angle):
    kernel = MotionBlur(2 * radius + 1, angle).kernel
    offsets = torch.arange(-radius, radius + 1, dtype=DOUBLE)
    spread = (kernel.sum(0) * offsets**2).sum() + (kernel.sum(1) * offsets**2).sum()
    assert (kernel >= 0).all()
    assert kernel.sum().item() == pytest.approx(1)
    # A uniform line of length 2 r has variance r^2 / 3; sharing with neighbours adds at most 1 / 4 along each axis.
    assert radius**2 / 3 - 0.01 * radius <= spread <= radius**2 / 3 + 0.5


@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(0, 30))
def test_a_shake_is_a_centred_exposure_of_one(seed, intensity, radius):
    size = 2 * radius + 1
    kernel = MotionBlur.shake(size, intensity, seeded(seed)).kernel
    offsets = torch.arange(size, dtype=DOUBLE) - radius
    assert kernel.shape == (size, size)
    assert (kernel >= 0).all()
    assert kernel.sum().item() == pytest.approx(1)
    assert (kernel.sum(0) @ offsets).abs() < 1e-9
    assert (kernel.sum(1) @ offsets).abs() < 1e-9
    assert torch.equal(kernel, MotionBlur.shake(size, intensity, seeded(seed)).kernel)


def test_shakes_differ_by_seed_and_crumple_with_intensity():
    offsets = torch.arange(-30, 31, dtype=DOUBLE) ** 2
    spreads = []
    for intensity in (0.0, 0.3, 1.0):
        kernels = torch.stack([MotionBlur.shake(61, intensity, seeded(seed)).kernel for seed in range(40)])
        assert not torch.isclose(kernels[0], kernels[1]).all()
        spreads.append(((kernels.sum(1) + kernels.sum(2)) @ offsets).mean().item())
    assert spreads[0] == pytest.approx(300, rel=0.01), "a straight line of 60 pixels"
    assert spreads[0] > spreads[1] > spreads[2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blur(torch.ones(4, 3)), "4x3"),
        (lambda: Blur(torch.ones(3, 3, 3)), "3x3x3"),
        (lambda: Blur(torch.zeros(3, 3)), "zero"),
        (lambda: Blur(torch.tensor([[float("nan")]])), "NaN"),
        (lambda: GaussianBlur(60, 3.0), "kernel_size is 60"),
        (lambda: GaussianBlur(-1, 3.0), "kernel_size is -1"),
        (lambda: GaussianBlur(61, 0.0), "std is 0"),
        (lambda: GaussianBlur(61, math.nan), "std is nan"),
        (lambda: MotionBlur(4), "kernel_size is 4"),
        (lambda: MotionBlur(5, math.inf), "angle is inf"),
        (lambda: MotionBlur.shake(5, 1.5, seeded()), "intensity is 1.5"),
        (lambda: MotionBlur.shake(6, 0.5, seeded()), "kernel_size is 6"),
    ],
)
def test_kernels_are_validated(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("use", ["__call__", "adjoint", "squared", "pinv"])
def test_a_kernel_larger_than_the_picture_is_refused(use):
    with pytest.raises(InputError, match=r"61x61.*64x48"):
        getattr(GaussianBlur(), use)(torch.zeros(1, 3, 64, 48))
    with pytest.raises(InputError, match="61x61"):
        GaussianBlur().picture_size((60, 100))


@pytest.mark.parametrize("std", [5e-324, 1e-300, 1e30, 1.7e308])
def test_a_gaussian_of_any_width_is_a_kernel(std):
    """From a point to the mean of the whole kernel."""
    kernel = GaussianBlur(9, std).kernel
    assert kernel.sum().item() == pytest.approx(1)
    assert kernel[4, 4].item() == pytest.approx(1 if std < 1 else 1 / 81)
