"""Rows of the networks that methods take, for benchmarks/full_size.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks import systems
from benchmarks.systems import Sampler, VIPaint
from benchmarks.tasks import Case
from vipaint_ops import (
    DiffusionPrior,
    Evaluations,
    NoiseSchedule,
    Observation,
    fit_posterior,
    load_embedded_prior,
    operators,
    presets,
    sample_posterior,
)
from vipaint_ops.evaluation.cost import SAMPLES, Rows
from vipaint_ops.images.masks import half_plane
from vipaint_ops.inference.corrections import GRADIENTS
from vipaint_ops.inference.decoder import fitted_pictures
from vipaint_ops.samplers import KalmanConfig

WHOLE = frozenset(GRADIENTS)
"""Gradients of the whole prediction, through decoder and denoiser."""
FULL_CELLS = 64 * 64
"""Cells of the smallest latent; larger ones need as few pictures for a linear decoder."""
SCENE = 64
ON_EMBEDDED: dict[str, VIPaint | Sampler] = {
    **{f"VIPaint {name}": systems.preset(name) for name in ("fast", "balanced", "quality", "layouts")},
    "VIPaint, exact decoder": systems.METHODS["VIPaint, exact decoder"],
    "Kalman": systems.METHODS["Kalman"],
    "ReSample": systems.METHODS["ReSample"],
}
ON_NORMAL: dict[str, VIPaint | Sampler] = {
    **{f"VIPaint {name}": systems.preset(name) for name in ("published v1", "published v2")},
    **{
        name: method
        for name, method in systems.METHODS.items()
        if isinstance(method, Sampler) and name not in ON_EMBEDDED
    },
}
"""Methods whose rows depend on their settings alone. CoPaint also repeats steps that raise its objective, which are not
in this count."""


class StandardNormal:
    """A prior of N(0, 1) latents in Stable Diffusion's schedule, with identity decoder and encoder."""

    identity, data_std = "standard normal", 1.0
    device, dtype = torch.device("cpu"), torch.float32
    latent_shape = (1, 8, 8)

    def __init__(self):
        self.schedule = NoiseSchedule.scaled_linear(0.00085, 0.012)

    def denoise(self, z: Tensor, t: Tensor) -> Tensor:
        level = self.schedule.level(t[0].item())
        return z * (level.alpha / (level.alpha**2 + level.sigma**2))

    def decode(self, z0: Tensor) -> Tensor:
        return z0

    def encode(self, x: Tensor) -> Tensor:
        return x


def count_rows(method: VIPaint | Sampler, prior: DiffusionPrior, observation: Observation) -> Rows:
    """Rows that ``method`` takes for :data:`SAMPLES` samples of a full-size picture."""
    generator, cells = torch.Generator().manual_seed(0), math.prod(prior.latent_shape[-2:])
    if isinstance(method, Sampler):
        spent = method(prior, observation, SAMPLES, generator)[1]
        return Rows(Evaluations(), at_full_size(spent, method.config.decoder, cells))
    posterior = fit_posterior(prior, observation, method.fit, generator=generator)
    drawn = sample_posterior(prior, observation, posterior, SAMPLES, method.refine, generator=generator)
    return Rows(
        at_full_size(posterior.evaluations, method.fit.decoder, cells),
        at_full_size(drawn.evaluations, method.refine.decoder_for(observation), cells),
    )


def at_full_size(rows: Evaluations, decoder: str, cells: int) -> Evaluations:
    """Rows counted on latents of ``cells`` cells, with the pictures of a linear decoder that a full-size one takes."""
    if decoder == "exact":
        return rows
    surplus = sum(fitted_pictures(cells)) - sum(fitted_pictures(FULL_CELLS))
    return rows + Evaluations(decoder_forward=-2 * surplus, encoder_forward=-surplus)


def hole(name: str) -> tuple[DiffusionPrior, Observation]:
    """The prior and the half-hidden picture on which the rows of a method are counted."""
    if name in ON_EMBEDDED:
        return load_embedded_prior(), Case("half", SCENE).observation
    prior, mask = StandardNormal(), half_plane(8, 8, 0.0)
    picture = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(SCENE))
    return prior, Observation(mask * picture, operators.Inpainting(mask), 0.02)


def gradients(method: VIPaint | Sampler) -> frozenset[str]:
    """The gradients that a method takes, of :data:`~vipaint_ops.inference.corrections.GRADIENTS`."""
    if isinstance(method, VIPaint):
        return method.fit.differentiates | method.refine.differentiates
    if isinstance(method.config, KalmanConfig):
        return method.config.correction.differentiates(method.config.decoder)
    return WHOLE


def rows_together(method: VIPaint | Sampler) -> int:
    """The largest batch with gradients."""
    if isinstance(method, Sampler):
        return min(SAMPLES, method.config.batch_size)
    return presets.rows_together(method.fit, method.refine, SAMPLES)
