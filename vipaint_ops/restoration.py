"""One call for every method: samples of a degraded picture, by VIPaint or by the method of another paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch

from . import samplers
from .diffusion.prior import DiffusionPrior, Evaluations, SizedPrior
from .errors import InputError
from .evaluation.cost import Rows
from .images.padding import crop_to, pad_observation
from .inference.progress import Callback
from .inference.results import SampleResult
from .measurement.observation import Observation
from .presets import ALL, GAUSSIAN, MASKS, PRESETS
from .samplers.config import SamplerConfig
from .samplers.driver import Sampler
from .vipaint import HierarchicalPosterior, fit_posterior, sample_posterior


class Method(NamedTuple):
    """A sampler with the class of its settings.

    Attributes:
        title: its name in the literature.
        observations: that it is defined for, as of a :class:`~vipaint_ops.presets.Preset`.
        cost: of four samples of a hole, as :class:`~vipaint_ops.presets.Preset` has it.
        evaluations: rows of that run.
    """

    sample: Sampler[Any]
    config: type[SamplerConfig]
    title: str
    source: str
    observations: str
    cost: tuple[float, float]
    evaluations: Evaluations

    @property
    def rows(self) -> Rows:
        """Rows of four samples; there is no fit."""
        return Rows(Evaluations(), self.evaluations)

    def rows_together(self, samples: int) -> int:
        """The largest batch with gradients, for that many samples."""
        return min(samples, self.config().batch_size)


VIPAINT = "vipaint"
"""The method that fits a posterior before it samples."""
METHODS: dict[str, Method] = {
    "blended": Method(
        samplers.blended,
        samplers.BlendedConfig,
        "Blended",
        "Avrahami et al., SIGGRAPH 2023",
        MASKS,
        (8.5, 8.7),
        Evaluations(1000, 0, 4, 0, 1, 0, 0),
    ),
    "copaint": Method(
        samplers.copaint,
        samplers.CoPaintConfig,
        "CoPaint",
        "Zhang et al., ICML 2023",
        GAUSSIAN,
        (134.8, 143.8),
        Evaluations(4000, 2000, 4012, 2000, 1, 0, 0),
    ),
    "ddnm": Method(
        samplers.ddnm,
        samplers.DDNMConfig,
        "DDNM+",
        "Wang et al., ICLR 2023",
        GAUSSIAN,
        (11.1, 8.0),
        Evaluations(400, 0, 404, 0, 406, 0, 0),
    ),
    "ding": Method(
        samplers.ding,
        samplers.DInGConfig,
        "DInG",
        "Moufad et al., 2026",
        MASKS,
        (2.1, 2.1),
        Evaluations(220, 0, 16, 0, 13, 0, 0),
    ),
    "dps": Method(
        samplers.dps,
        samplers.DPSConfig,
        "DPS",
        "Chung et al., ICLR 2023",
        ALL,
        (182.5, 220.3),
        Evaluations(4000, 4000, 4004, 4000, 0, 0, 0),
    ),
    "kalman": Method(
        samplers.kalman,
        samplers.KalmanConfig,
        "Kalman",
        "Boys et al., 2023",
        ALL,
        (5.1, 4.2),
        Evaluations(128, 0, 161, 24, 2, 0, 368),
    ),
    "lanpaint": Method(
        samplers.lanpaint,
        samplers.LanPaintConfig,
        "LanPaint",
        "Zheng et al., 2025",
        MASKS,
        (4.0, 3.9),
        Evaluations(436, 0, 16, 0, 13, 0, 0),
    ),
    "latino": Method(
        samplers.latino,
        samplers.LATINOConfig,
        "LATINO",
        "Spagnoletti et al., 2025",
        GAUSSIAN,
        (3.4, 3.0),
        Evaluations(256, 0, 68, 0, 64, 0, 0),
    ),
    "pigdm": Method(
        samplers.pigdm,
        samplers.PiGDMConfig,
        "PiGDM",
        "Song et al., ICLR 2023",
        ALL,
        (23.6, 25.3),
        Evaluations(400, 400, 804, 400, 0, 0, 0),
    ),
    "psld": Method(
        samplers.psld,
        samplers.PSLDConfig,
        "PSLD",
        "Rout et al., NeurIPS 2023",
        GAUSSIAN,
        (230.6, 247.3),
        Evaluations(4000, 4000, 4004, 4000, 4000, 4000, 0),
    ),
    "red-diff": Method(
        samplers.red_diff,
        samplers.RedDiffConfig,
        "RED-diff",
        "Mardani et al., ICLR 2024",
        GAUSSIAN,
        (140.8, 148.2),
        Evaluations(4000, 0, 4004, 4000, 1, 0, 0),
    ),
    "red-diff-v": Method(
        samplers.red_diff_v,
        samplers.RedDiffVConfig,
        "RED-diff V",
        "control of VIPaint, 2024",
        GAUSSIAN,
        (140.8, 148.2),
        Evaluations(4000, 0, 4004, 4000, 1, 0, 0),
    ),
    "repaint": Method(
        samplers.repaint,
        samplers.RePaintConfig,
        "RePaint",
        "Lugmayr et al., CVPR 2022",
        MASKS,
        (81.6, 83.3),
        Evaluations(9640, 0, 4, 0, 1, 0, 0),
    ),
    "resample": Method(
        samplers.resample,
        samplers.ReSampleConfig,
        "ReSample",
        "Song et al., ICLR 2024",
        GAUSSIAN,
        (125.5, 145.6),
        Evaluations(2660, 2000, 3093, 3021, 68, 0, 0),
    ),
}
"""The methods of other papers, by name."""


def restore(
    prior: DiffusionPrior,
    observation: Observation,
    num_samples: int = 4,
    *,
    preset: str = "balanced",
    method: str = VIPAINT,
    posterior: HierarchicalPosterior | None = None,
    seed: int = 0,
    first: int = 0,
    callback: Callback | None = None,
    **settings: Any,
) -> SampleResult:
    """Draw samples of the picture behind ``observation``.

    A :class:`~vipaint_ops.diffusion.prior.SizedPrior`, as those of diffusers models, takes a picture of any size: it is
    padded, and the images of the result are cropped. Latents keep the border.

    Args:
        num_samples: how many.
        preset: settings of VIPaint, one of ``PRESETS``; other methods have their own.
        method: "vipaint", or one of ``METHODS``.
        posterior: an earlier fit to this observation, for VIPaint; fitted if not given.
        seed: of all random numbers; equal seeds give equal samples.
        first: number of the first sample. The samples of a seed may be drawn in several calls.
        callback: called after every step.
        settings: changes to the settings of the method: of ``RefineConfig`` for VIPaint, else of its own class.

    Raises:
        InputError: an unknown preset, method or setting, a value out of range, or an observation that the method is not
            defined for.
    """
    size = observation.operator.picture_size((observation.y.shape[-2], observation.y.shape[-1]))
    config = sampling_settings(method, preset, settings)
    if method != VIPAINT and posterior is not None:
        raise InputError(f"posterior is given, and method {method!r} has none: use method {VIPAINT!r}")
    prior, observation = for_picture(prior, observation)
    run: dict[str, Any] = {"generator": stream(seed, 1), "first": first, "callback": callback}
    if method == VIPAINT:
        if posterior is None:
            fit = PRESETS[preset].fit
            posterior = fit_posterior(prior, observation, fit, generator=stream(seed, 0), callback=callback)
        result = sample_posterior(prior, observation, posterior, num_samples, config, **run)
    else:
        result = METHODS[method].sample(prior, observation, num_samples, config, **run)
    return dataclasses.replace(result, images=crop_to(result.images, *size))


def sampling_settings(method: str, preset: str, settings: Mapping[str, Any]) -> Any:
    """The settings of a method with ``settings`` changed: a ``RefineConfig`` for VIPaint, else the method's own class.

    Raises:
        InputError: an unknown method, preset or setting, or a value out of its range.
    """
    kinds: dict[str, Callable[[], Any]] = {VIPAINT: lambda: one_of("preset", preset, PRESETS).refine}
    kinds |= {name: found.config for name, found in METHODS.items()}
    return changed(one_of("method", method, kinds)(), settings)


def stream(seed: int, stage: int) -> torch.Generator:
    """The random numbers of a stage, 0 for a fit and 1 for sampling: a saved fit gives the samples of one call."""
    return torch.Generator().manual_seed(2 * seed + stage)


def for_picture(prior: Any, observation: Observation) -> tuple[Any, Observation]:
    """The model and the observation for the picture padded to a size that the model takes, if it takes several."""
    if not isinstance(prior, SizedPrior):
        return prior, observation
    padded = pad_observation(observation, prior.picture_multiple)
    height, width = padded.operator.picture_size((padded.y.shape[-2], padded.y.shape[-1]))
    return prior.for_size(height, width), padded


Choice = TypeVar("Choice")


def one_of(name: str, value: str, options: dict[str, Choice]) -> Choice:
    """The option of that name.

    Raises:
        InputError: there is none.
    """
    if value not in options:
        raise InputError(f"{name} is {value!r}; choose one of {', '.join(options)}")
    return options[value]


Config = TypeVar("Config")


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """The configuration with other settings.

    Raises:
        InputError: it has no such setting, or a value is out of its range.
    """
    known = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    for name in settings:
        one_of("setting", name, dict.fromkeys(known))
    return dataclasses.replace(config, **settings)  # type: ignore[type-var]
