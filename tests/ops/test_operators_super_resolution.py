"""Super-resolution: bicubic and average downsampling against independent definitions."""

import pytest
import torch
import torch.nn.functional as F

from tests.ops.operator_cases import CPU
from vipaint_ops.errors import InputError
from vipaint_ops.operators import SuperResolution

DOUBLE = torch.float64


def picture(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)


@pytest.mark.parametrize("factor", [2, 3, 4, 7])
def test_bicubic_is_the_antialiased_cubic_of_minus_one_half(factor):
    x = picture(1, 3, 12 * factor, 10 * factor)
    expected = F.interpolate(x, scale_factor=1 / factor, mode="bicubic", antialias=True)
    inside = (..., slice(2, -2), slice(2, -2))  # at the edge torch renormalises, Matlab mirrors
    torch.testing.assert_close(SuperResolution(factor)(x)[inside], expected[inside])


def test_bicubic_of_four_has_sixteen_taps():
    point = torch.zeros(1, 1, 16, 16, dtype=DOUBLE)
    point[..., 7, 5] = 1
    used = (SuperResolution(4).adjoint(point)[0, 0] != 0).nonzero()
    assert used.min(0).values.tolist() == [22, 14]
    assert used.max(0).values.tolist() == [37, 29]


@pytest.mark.parametrize("kind", ["bicubic", "average"])
@pytest.mark.parametrize("factor", [2, 3, 5])
def test_the_picture_is_mirrored_at_its_edges(factor, kind):
    x = picture(1, 2, 4 * factor, 3 * factor)
    tall = torch.cat([x.flip(-2), x, x.flip(-2)], -2)
    mirrored = torch.cat([tall.flip(-1), tall, tall.flip(-1)], -1)
    operator = SuperResolution(factor, kind)
    torch.testing.assert_close(operator(mirrored)[..., 4:8, 3:6], operator(x))


@pytest.mark.parametrize("kind", ["bicubic", "average"])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (16, 16)])
@pytest.mark.parametrize("factor", [1, 2, 8, 16])
def test_flat_pictures_stay_flat_there_and_back(size, factor, kind):
    operator = SuperResolution(factor, kind)
    x = torch.full((1, 3, size[0] * factor, size[1] * factor), 0.25, dtype=DOUBLE)
    torch.testing.assert_close(operator(x), torch.full((1, 3, *size), 0.25, dtype=DOUBLE))


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_average_is_the_mean_of_blocks_and_its_inverse_repeats_pixels(factor):
    operator, x = SuperResolution(factor, "average"), picture(2, 3, 4 * factor, 5 * factor)
    y = operator(x)
    torch.testing.assert_close(y, F.avg_pool2d(x, factor))
    repeated = y.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    torch.testing.assert_close(operator.pinv(y), repeated)
    torch.testing.assert_close(operator.squared(x.abs()), F.avg_pool2d(x.abs(), factor) / factor**2)


def test_matrices_made_while_sampling_serve_gradients_later():
    operator = SuperResolution(13)
    with torch.inference_mode():
        operator(torch.zeros(1, 1, 26, 39))
        operator.pinv(torch.zeros(1, 1, 2, 3))
    x = torch.zeros(1, 1, 26, 39, requires_grad=True)
    operator.pinv(operator(x)).sum().backward()
    assert x.grad.sum().item() == pytest.approx(26 * 39, rel=1e-4)


def test_bfloat16_is_summed_in_float32():
    x = picture(1, 3, 64, 64).bfloat16()
    operator = SuperResolution(4).to(CPU, torch.bfloat16)
    assert torch.equal(operator(x), operator(x.float()).bfloat16())


@pytest.mark.parametrize("use", ["__call__", "squared"])
def test_a_factor_that_does_not_divide_is_refused(use):
    with pytest.raises(InputError, match=r"66x64.*factor 4.*64x64"):
        getattr(SuperResolution(4), use)(torch.zeros(1, 3, 66, 64))


@pytest.mark.parametrize("factor", [0, -2, 2.5, "4"])
def test_factors_are_whole_numbers(factor):
    with pytest.raises(InputError, match="factor is"):
        SuperResolution(factor)


def test_kinds_are_named():
    with pytest.raises(InputError, match=r"lanczos.*bicubic, average"):
        SuperResolution(4, "lanczos")
