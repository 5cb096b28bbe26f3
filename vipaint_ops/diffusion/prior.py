"""The protocol of a diffusion prior, and a wrapper that counts its evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .schedule import NoiseSchedule


class DiffusionPrior(Protocol):
    """A frozen diffusion model over latents, with the decoder that makes pictures of them.

    A prior with classifier-free guidance may also have ``denoise_for_covariance(z, t)``: the value of ``denoise`` with
    the gradient of the conditional prediction alone. That Jacobian gives the covariance of z_0 given z_t and the
    condition (Tweedie); the Jacobian of the guided prediction gives none, and costs twice as much.

    Latents are ``[batch, *latent_shape]``, pictures ``[batch, channels, height, width]`` in [-1, 1].
    Tensors in and out are float32 or float64; a model of lower precision casts inside.
    """

    schedule: NoiseSchedule
    latent_shape: tuple[int, ...]
    identity: str
    """Names the model and its weights, so that a saved posterior can be checked against it."""
    data_std: float
    """Standard deviation of clean latents: 1 for latent spaces scaled to unit variance, as most are."""
    device: torch.device
    dtype: torch.dtype

    def denoise(self, z: Tensor, t: Tensor) -> Tensor:
        """E[z_0 | z_t = z] for times ``t`` of shape ``[batch]``; differentiable in ``z``."""
        ...

    def decode(self, z0: Tensor) -> Tensor:
        """Latent to picture, differentiable, unclamped."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """Picture to latent (the mean, where the encoder is random)."""
        ...


class LinearMap(Protocol):
    """A linear map in the place of a decoder's Jacobian (:class:`~vipaint_ops.inference.decoder.LinearDecoder`)."""

    @property
    def gain(self) -> float:
        """Variance of a pixel for a latent change of variance 1."""
        ...

    def adjoint(self, picture: Tensor, like: Tensor) -> Tensor:
        """The transposed map: latents of the shape of ``like``."""
        ...

    @property
    def error_variance(self) -> float:
        """Variance of the error of a pixel, for a latent change of variance 1."""
        ...

    def error_times(self, x: Tensor) -> Tensor:
        """The covariance of the error times pictures."""
        ...

    def to(self, dtype: torch.dtype) -> LinearMap:
        """This map in ``dtype``."""
        ...

    def product(self, v: Tensor) -> Tensor:
        """The change of the picture for a change ``v`` of the latents; differentiable."""
        ...


@dataclass
class Evaluations:
    """Network evaluations, in rows: a batch of 8 through the denoiser counts 8."""

    denoiser_forward: int = 0
    denoiser_backward: int = 0
    decoder_forward: int = 0
    decoder_backward: int = 0
    encoder_forward: int = 0
    encoder_backward: int = 0

    @property
    def denoiser(self) -> int:
        """Denoiser rows, forward and backward together."""
        return self.denoiser_forward + self.denoiser_backward

    def __str__(self) -> str:
        networks = ("denoiser", "decoder", "encoder")
        return ", ".join(
            f"{name} {getattr(self, f'{name}_forward')} forward {getattr(self, f'{name}_backward')} backward"
            for name in networks
        )

    def __add__(self, other: Evaluations) -> Evaluations:
        return Evaluations(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class CountedPrior:
    """A prior that counts the rows of its calls, forward and backward, and can checkpoint them.

    With ``checkpointing`` the activations of each network call are recomputed in the backward pass.

    Attributes:
        linear: a map whose gradient replaces that of the decoder; none for the decoder's own.
        decoder_gradient: whether the decoder can be differentiated: the prior's attribute of that name, if it has one.
    """

    linear: LinearMap | None = None

    def __init__(self, prior: DiffusionPrior, checkpointing: bool = False):
        self._prior, self._checkpointing = prior, checkpointing
        self.schedule, self.latent_shape, self.identity = prior.schedule, tuple(prior.latent_shape), prior.identity
        self.data_std, self.device, self.dtype = prior.data_std, prior.device, prior.dtype
        self.decoder_gradient: bool = getattr(prior, "decoder_gradient", True)
        self.evaluations = Evaluations()

    def zeros(self, count: int) -> Tensor:
        """``[count, *latent_shape]`` zeros in the prior's dtype and on its device."""
        return torch.zeros(count, *self.latent_shape, dtype=self.dtype, device=self.device)

    def denoise(self, z: Tensor, t: float) -> Tensor:
        """E[z_0 | z_t] with one time for the whole batch."""
        times = torch.full((len(z),), t, dtype=z.dtype, device=z.device)
        return self._call("denoiser", lambda v: self._prior.denoise(v, times), z)

    def denoise_for_covariance(self, z: Tensor, t: float) -> Tensor:
        """The value of :meth:`denoise`; its Jacobian is that of the conditional prediction, if the prior has one."""
        times = torch.full((len(z),), t, dtype=z.dtype, device=z.device)
        denoise = getattr(self._prior, "denoise_for_covariance", self._prior.denoise)
        return self._call("denoiser", lambda v: denoise(v, times), z)

    def decode(self, z0: Tensor, exact: bool = False) -> Tensor:
        """Latent to picture; with ``linear``, unless ``exact``, the decoder's picture with the gradient of that map."""
        if exact or self.linear is None or not (torch.is_grad_enabled() and z0.requires_grad):
            return self._call("decoder", self._prior.decode, z0)
        with torch.no_grad():
            picture = self._call("decoder", self._prior.decode, z0)
        return with_gradient_of(self.linear.product(z0), picture)

    def encode(self, x: Tensor) -> Tensor:
        """Picture to latent."""
        return self._call("encoder", self._prior.encode, x)

    def _call(self, network: str, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        self._count(network + "_forward", len(x))
        if not (torch.is_grad_enabled() and x.requires_grad):
            return function(x)
        y = checkpoint(function, x, use_reentrant=False) if self._checkpointing else function(x)
        y = y.view_as(y)  # an identity decoder returns x itself, and a hook on x would count other uses of it
        y.register_hook(lambda _: self._count(network + "_backward", len(x)))
        return y

    def _count(self, name: str, rows: int) -> None:
        setattr(self.evaluations, name, getattr(self.evaluations, name) + rows)


def with_gradient_of(surrogate: Tensor, value: Tensor) -> Tensor:
    """``value`` with the gradient of ``surrogate``."""
    return _StraightThrough.apply(surrogate, value)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
