"""A linear map in the place of the decoder's Jacobian.

Guidance needs products with the Jacobian J of the decoder and with its transpose. Backward passes through the decoder
are the largest part of the cost and memory of guidance with latent models. The block of f x f pixels of a latent cell
is nearly an affine function of the 3 x 3 cells around it. With that map for J, the decoder runs forward only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.prior import CountedPrior
from .linearised import exact

DECODERS = ("exact", "linear")
LEAST_EXPLAINED = 0.5
"""Share of the pictures' variance below which a map is not used; chosen, not measured."""
_CELLS, _NOISE, _RIDGE, _CONTRAST = 4096, 0.3, 1e-3, 0.5


@dataclass(frozen=True)
class LinearDecoder:
    """L: changes of a latent to changes of its picture, with the same weights at every cell.

    Attributes:
        weight: ``[channels f^2, latent channels, 3, 3]``, for f x f pixels a cell.
        factor: f.
        gain: variance of the decoder's change of a pixel, for a latent change of variance 1 around a picture.
        error: covariance of the change that L does not explain, between the values of a block of pixels,
            ``[channels f^2, channels f^2]``.
        explained: share of the variance of pictures that L explains, on pictures that it was not fitted on.
    """

    weight: Tensor
    factor: int
    gain: float = math.nan
    error: Tensor | None = None
    explained: float = math.nan

    def product(self, v: Tensor) -> Tensor:
        """L v: latents ``[batch, *latent_shape]`` to pictures ``[batch, channels, f height, f width]``."""
        padded = F.pad(planes(v), (1, 1, 1, 1), mode="replicate")
        return F.pixel_shuffle(F.conv2d(padded, self.weight), self.factor)

    def adjoint(self, picture: Tensor, like: Tensor) -> Tensor:
        """L^T of pictures: latents of the shape of ``like``."""
        with torch.enable_grad():
            v = torch.zeros_like(like).requires_grad_()
            (transposed,) = torch.autograd.grad(self.product(v), v, picture)
        return transposed

    @property
    def error_variance(self) -> float:
        """The part of ``gain`` that L does not explain."""
        assert self.error is not None
        return self.error.diagonal().mean().item()

    def error_times(self, x: Tensor) -> Tensor:
        """The covariance of the error times pictures ``x``."""
        assert self.error is not None
        blocks = F.pixel_unshuffle(x, self.factor)
        return F.pixel_shuffle(F.conv2d(blocks, self.error[:, :, None, None]), self.factor)

    def to(self, dtype: torch.dtype) -> LinearDecoder:
        """This map in ``dtype``."""
        assert self.error is not None
        return replace(self, weight=self.weight.to(dtype), error=self.error.to(dtype))

    @classmethod
    def fit(cls, z0: Tensor, pictures: Tensor) -> LinearDecoder:
        """Ridge regression of ``pictures``, the decoded ``z0``, on 3 x 3 cells and a constant."""
        cells = planes(z0)
        factor = pictures.shape[-1] // cells.shape[-1]
        patches = F.unfold(F.pad(cells, (1, 1, 1, 1), mode="replicate"), 3)
        x = exact(patches).movedim(1, 2).flatten(0, 1)
        y = exact(F.pixel_unshuffle(pictures, factor)).flatten(2).movedim(1, 2).flatten(0, 1)
        x, y = x - x.mean(0), y - y.mean(0)
        gram = x.mT @ x
        penalty = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        weight = torch.linalg.solve(gram + penalty, x.mT @ y).mT
        return cls(weight.reshape(-1, cells.shape[1], 3, 3).to(z0.dtype).to(z0.device), factor)


def planes(z0: Tensor) -> Tensor:
    """Latents as ``[batch, channels, height, width]``: a frame axis of length one is dropped."""
    return z0[:, :, 0] if z0.ndim == 5 and z0.shape[2] == 1 else z0


@torch.no_grad()
def linear_decoder(prior: CountedPrior) -> LinearDecoder | None:
    """The map of a decoder, or None where it explains too little or latents are no grids of cells.

    A map that explains too little is returned too where the decoder cannot be differentiated.

    It is fitted on encoded random pictures with the 1/f spectrum of natural images (Field 1987), and on noisy copies of
    the latents: it depends on the autoencoder and the size of the latent alone. 4096 / cells pictures are fitted and
    an eighth of that number is held out, both rounded up. A picture costs one row of the encoder and two of the
    decoder; one more row of the decoder gives the size.
    """
    if planes(prior.zeros(1)).ndim != 4:
        return None
    pictures = prior.decode(prior.zeros(1))
    height, width = prior.latent_shape[-2:]
    if pictures.ndim != 4 or pictures.shape[-2] * width != pictures.shape[-1] * height or pictures.shape[-1] % width:
        return None
    count, held = fitted_pictures(height * width)
    z0 = prior.encode(_natural(held + count, pictures))
    noise = torch.randn(z0.shape, generator=torch.Generator().manual_seed(1)).to(z0)
    noise *= _NOISE * prior.data_std
    whole, moved = prior.decode(z0), prior.decode(z0 + noise)
    fitted = LinearDecoder.fit(torch.cat([z0[held:], (z0 + noise)[held:]]), torch.cat([whole[held:], moved[held:]]))
    z0, noise, whole, moved = (x[:held] for x in (z0, noise, whole, moved))
    unit = noise.square().mean()
    gain = ((moved - whole).square().mean() / unit).item()
    left = F.pixel_unshuffle(moved - whole - fitted.product(noise), fitted.factor)
    rows = left.movedim(1, -1).flatten(0, -2)
    error = rows.mT @ rows / (len(rows) * unit)
    rest = whole - fitted.product(z0)
    explained = 1 - (rest.var((2, 3)).sum() / whole.var((2, 3)).sum()).item()
    if prior.decoder_gradient and not explained >= LEAST_EXPLAINED:
        return None
    return LinearDecoder(fitted.weight, fitted.factor, gain, error, explained)


def fitted_pictures(cells: int) -> tuple[int, int]:
    """The number of pictures of so many latent cells that a map is fitted on, and of those held out."""
    count = math.ceil(_CELLS / cells)
    return count, math.ceil(count / 8)


def _natural(count: int, like: Tensor) -> Tensor:
    """Random pictures of the size of ``like`` with amplitudes 1 / frequency, in [-1, 1]."""
    height, width = like.shape[-2:]
    frequency = torch.fft.fftfreq(height)[:, None].hypot(torch.fft.fftfreq(width))
    frequency[0, 0] = math.inf
    white = torch.randn(count, like.shape[1], height, width, generator=torch.Generator().manual_seed(0))
    pictures = torch.fft.ifft2(torch.fft.fft2(white) / frequency).real
    return (_CONTRAST * pictures / pictures.std((2, 3), keepdim=True)).clamp(-1, 1).to(like)
