"""PiGDM: pseudo-inverse guidance, one variance for the whole picture."""

from __future__ import annotations

from dataclasses import dataclass

from ..inference.chain import guided_chain, pure_noise
from ..inference.corrections import PseudoInverse
from ..inference.progress import reported
from ..settings import number
from .config import SamplerConfig
from .driver import sampler


@dataclass(frozen=True, kw_only=True)
class PiGDMConfig(SamplerConfig):
    """Published: 100 steps, even in time; ``eta`` 1, ancestral noise (0 for none)."""

    steps: int = number(100, 1)
    eta: float = number(1.0, 0, 1)


@sampler(PiGDMConfig)
def pigdm(prior, observation, config, streams, callback):
    """PiGDM (Song et al. 2023, eq. 6-8), with the gradient of ln N(y; A zh, r^2 A A^T + sigma_y^2) in the score.

    r^2 is the variance of z_0 given z_t for independent latents (their appendix), so samples are right where latents
    are independent and of equal variance. There is no step size.
    """
    steps = prior.schedule.reverse_steps(config.grid(prior))
    z = pure_noise(prior, steps[0].t, streams)
    return guided_chain(prior, observation, z, reported(steps, callback), PseudoInverse(), streams, config.eta)
