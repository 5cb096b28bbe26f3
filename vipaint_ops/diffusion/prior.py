"""The protocol of a diffusion prior, and a wrapper that counts its evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .schedule import NoiseSchedule


class DiffusionPrior(Protocol):
    """A frozen diffusion model over latents, with the decoder that makes pictures of them.

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


@runtime_checkable
class SizedPrior(Protocol):
    """A prior for pictures of several sizes."""

    picture_multiple: int
    """Both sides of a picture must be multiples of this."""

    def for_size(self, height: int, width: int) -> Any:
        """The same model for pictures of ``height`` x ``width`` pixels."""
        ...


class GuidedPrior(DiffusionPrior, Protocol):
    """A prior with classifier-free guidance, which also has the prediction of the condition alone.

    The Jacobian of that prediction gives the covariance of z_0 given z_t and the condition (Tweedie). That of the
    guided prediction is no covariance.
    """

    def denoise_with_condition(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The guided prediction of ``denoise``, and that of the condition alone; without gradients."""
        ...

    def denoise_condition(self, z: Tensor, t: Tensor) -> Tensor:
        """The prediction of the condition alone; without gradients. Called after ``denoise_with_condition``."""
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
    """Network evaluations, in rows: a batch of 8 through the denoiser counts 8.

    Attributes:
        condition_forward: predictions for products with the covariance. Under classifier-free guidance they are of the
            condition alone, and cost half of a guided one.
    """

    denoiser_forward: int = 0
    denoiser_backward: int = 0
    decoder_forward: int = 0
    decoder_backward: int = 0
    encoder_forward: int = 0
    encoder_backward: int = 0
    condition_forward: int = 0

    @property
    def denoiser(self) -> int:
        """Denoiser rows, forward and backward together, and those of products with the covariance."""
        return self.denoiser_forward + self.denoiser_backward + self.condition_forward

    def __str__(self) -> str:
        networks = ("denoiser", "decoder", "encoder")
        rows = [
            f"{name} {getattr(self, f'{name}_forward')} forward {getattr(self, f'{name}_backward')} backward"
            for name in networks
        ]
        return ", ".join([rows[0], f"condition alone {self.condition_forward} forward", *rows[1:]])

    def __add__(self, other: Evaluations) -> Evaluations:
        return Evaluations(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class CountedPrior:
    """A prior that counts the rows of its calls, forward and backward, and can checkpoint them.

    With ``checkpointing`` the activations of each network call are recomputed in the backward pass.

    Attributes:
        linear: a map whose gradient replaces that of the decoder; none for the decoder's own.
        decoder_gradient: whether the decoder can be differentiated: the prior's attribute of that name, if it has one.
        weights_file: names the file of the weights, where the prior has such an attribute. Library and ComfyUI name a
            model differently, and its file alike.
    """

    linear: LinearMap | None = None

    def __init__(self, prior: DiffusionPrior, checkpointing: bool = False):
        self._prior, self._checkpointing = prior, checkpointing
        self.schedule, self.latent_shape, self.identity = prior.schedule, tuple(prior.latent_shape), prior.identity
        self.data_std, self.device, self.dtype = prior.data_std, prior.device, prior.dtype
        self.decoder_gradient: bool = getattr(prior, "decoder_gradient", True)
        self.weights_file: str | None = getattr(prior, "weights_file", None)
        self.evaluations = Evaluations()

    def zeros(self, count: int) -> Tensor:
        """``[count, *latent_shape]`` zeros in the prior's dtype and on its device."""
        return torch.zeros(count, *self.latent_shape, dtype=self.dtype, device=self.device)

    def denoise(self, z: Tensor, t: float) -> Tensor:
        """E[z_0 | z_t] with one time for the whole batch."""
        times = _times(z, t)
        return self._call("denoiser", lambda v: self._prior.denoise(v, times), z)

    @torch.no_grad()
    def denoise_with_condition(self, z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """The prediction of :meth:`denoise`, and that of the condition alone; the same twice but for a GuidedPrior."""
        if not hasattr(self._prior, "denoise_with_condition"):
            z0 = self.denoise(z, t)
            return z0, z0
        self._count("denoiser_forward", len(z))
        return self._prior.denoise_with_condition(z, _times(z, t))

    @torch.no_grad()
    def denoise_condition(self, z: Tensor, t: float) -> Tensor:
        """The prediction of the condition alone, for products with the covariance."""
        self._count("condition_forward", len(z))
        denoise = getattr(self._prior, "denoise_condition", self._prior.denoise)
        return denoise(z, _times(z, t))

    def decode(self, z0: Tensor, exact: bool = False) -> Tensor:
        """Latent to picture; with ``linear``, unless ``exact``, the decoder's picture with the gradient of that map."""
        if exact or self.linear is None or not (torch.is_grad_enabled() and z0.requires_grad):
            return self._call("decoder", self._prior.decode, z0)
        with torch.no_grad():
            picture = self._call("decoder", self._prior.decode, z0)
        return _StraightThrough.apply(self.linear.product(z0), picture)

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


def _times(z: Tensor, t: float) -> Tensor:
    """One time for each row of ``z``."""
    return torch.full((len(z),), t, dtype=z.dtype, device=z.device)


class _StraightThrough(torch.autograd.Function):
    """The value of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
