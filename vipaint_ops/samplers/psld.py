"""PSLD: posterior sampling with latent diffusion, with latents tied to those that the encoder would give."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..inference.chain import pure_noise
from ..inference.progress import reported
from ..settings import number
from .config import SamplerConfig
from .driver import gaussian_only, sampler
from .gradient_step import gradient_step, relative_length, residual_norm

PUBLISHED_SIZE, PUBLISHED_STEPS = 3 * 64 * 64, 1000


@dataclass(frozen=True, kw_only=True)
class PSLDConfig(SamplerConfig):
    """The defaults are those published for inpainting and deblurring with the latent diffusion model of FFHQ at 256
    pixels, in 1000 steps; lengths for other sizes and numbers of steps follow
    :func:`~vipaint_ops.samplers.gradient_step.relative_length`.

    Attributes:
        omega: step length down the residual's norm.
        gamma: step length down the gluing term, in units of data_std.
    """

    steps: int = number(PUBLISHED_STEPS, 1)
    omega: float = number(0.1, 0)
    gamma: float = number(0.1, 0)

    @classmethod
    def super_resolution(cls) -> PSLDConfig:
        """Super-resolution with that model."""
        return cls(omega=0.9)

    @classmethod
    def stable_diffusion(cls) -> PSLDConfig:
        """Stable Diffusion 1.5 at 512 pixels."""
        return cls(omega=1.0)

    @classmethod
    def stable_diffusion_box(cls) -> PSLDConfig:
        """A box to be filled in by that model."""
        return cls(gamma=0.01)


@sampler(PSLDConfig, gaussian_only("PSLD"))
def psld(prior, observation, config, streams, callback):
    """PSLD (Rout et al. 2023): a DDIM step, less the gradient by z_t of

        omega |y - A D(zh)| + gamma |zh - E(A^T y + (I - A^T A) D(zh))|,

    both norms of each sample. The gradient goes through the encoder.

    Raises:
        InputError: the observation's noise is not Gaussian.
    """

    def loss(z0: Tensor) -> Tensor:
        picture = prior.decode(z0)
        # A^T y + (I - A^T A) x is x + A^T (y - A x).
        glued = prior.encode(picture + observation.operator.adjoint(observation.residual(picture)))
        gluing = (z0 - glued).flatten(1).norm(dim=1) / prior.data_std
        return config.omega * residual_norm(observation, picture) + config.gamma * gluing

    steps = prior.schedule.reverse_steps(config.grid(prior))
    length = relative_length(prior, len(steps), PUBLISHED_SIZE, PUBLISHED_STEPS)
    z = pure_noise(prior, steps[0].t, streams)
    for step in reported(steps, callback):
        z = gradient_step(prior, z, step, loss, length, streams)
    return z
