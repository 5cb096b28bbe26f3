"""PSLD: posterior sampling with latent diffusion, which keeps the latent one that the encoder would give."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import DiffusionPrior
from ..diffusion.schedule import CLEAN
from ..inference.batches import sample_in_batches
from ..inference.chain import pure_noise
from ..inference.progress import Callback, Progress
from ..inference.results import SampleResult
from ..measurement.observation import Observation
from .config import SamplerConfig
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

    steps: int = PUBLISHED_STEPS
    omega: float = 0.1
    gamma: float = 0.1

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


def psld(
    prior: DiffusionPrior,
    observation: Observation,
    num_samples: int,
    config: PSLDConfig | None = None,
    *,
    generator: torch.Generator,
    first: int = 0,
    noise: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleResult:
    """PSLD (Rout et al. 2023): a DDIM step, less the gradient by z_t of

        omega |y - A D(zh)| + gamma |zh - E(A^T y + (I - A^T A) D(zh))|,

    both norms of each sample. The gradient goes through the encoder, whose evaluations are not counted.

    Raises:
        InputError: the observation's noise is not Gaussian.
    """
    observation.require_gaussian("PSLD")
    settings = config or PSLDConfig()
    times = settings.grid(prior)
    levels = [prior.schedule.level(t) for t in times] + [CLEAN]
    length = relative_length(prior, len(times), PUBLISHED_SIZE, PUBLISHED_STEPS)

    def chain(counted, observation, streams, report):
        def loss(z0: Tensor) -> Tensor:
            picture = counted.decode(z0)
            # A^T y + (I - A^T A) x is x + A^T (y - A x).
            glued = prior.encode(picture + observation.operator.adjoint(observation.residual(picture)))
            gluing = (z0 - glued).flatten(1).norm(dim=1) / prior.data_std
            return settings.omega * residual_norm(observation, picture) + settings.gamma * gluing

        z = pure_noise(counted, times[0], streams)
        for i, t in enumerate(times):
            z = gradient_step(counted, z, t, levels[i + 1], loss, length, streams)
            report(Progress("sample", i + 1, len(times)))
        return z

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, noise=noise,
        callback=callback,
    )  # fmt: skip
