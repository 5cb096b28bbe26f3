"""Agreement with an independent implementation; deepinv is wanted for this alone: pip install -e .[oracle]."""

import pytest
import torch

from vipaint_ops.operators import Blur, GaussianBlur, MotionBlur, SuperResolution

physics = pytest.importorskip("deepinv", reason="the oracle extra is not installed").physics

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def picture(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "blur",
    [
        GaussianBlur(),
        GaussianBlur(9, 1.5),
        MotionBlur(61, 35.0),
        MotionBlur.shake(61, 0.5, torch.Generator().manual_seed(2)),
        Blur(torch.rand(5, 7, generator=torch.Generator().manual_seed(3))),
    ],
    ids=["gaussian 61", "gaussian 9", "straight", "shake", "any"],
)
def test_blurs_and_their_adjoints_agree(blur):
    kernel = blur.kernel.float()[None, None]
    oracle, x = physics.Blur(filter=kernel, padding="reflect"), picture(77, 64)
    torch.testing.assert_close(blur(x), oracle.A(x), **CLOSE)
    torch.testing.assert_close(blur.adjoint(x), oracle.A_adjoint(x), **CLOSE)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_bicubic_downsampling_and_its_adjoint_agree(factor):
    oracle, operator = physics.DownsamplingMatlab(factor=factor), SuperResolution(factor)
    x, y = picture(16 * factor, 12 * factor), picture(16, 12)
    torch.testing.assert_close(operator(x), oracle.A(x), **CLOSE)
    torch.testing.assert_close(operator.adjoint(y), oracle.A_adjoint(y), **CLOSE)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_average_downsampling_and_its_adjoint_agree(factor):
    x, y = picture(16 * factor, 12 * factor), picture(16, 12)
    block = torch.ones(1, 1, factor, factor) / factor**2
    oracle = physics.Downsampling(img_size=x.shape[1:], filter=block, factor=factor, padding="valid")
    operator = SuperResolution(factor, "average")
    torch.testing.assert_close(operator(x), oracle.A(x), **CLOSE)
    torch.testing.assert_close(operator.adjoint(y), oracle.A_adjoint(y), **CLOSE)
