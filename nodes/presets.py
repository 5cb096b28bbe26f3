"""Settings of the presets in the nodes."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.inference.corrections import DPS, PseudoInverse
from ..vipaint_ops.presets import MASKS, PRESETS
from ..vipaint_ops.vipaint import FitConfig, RefineConfig

FITS = {name: preset.fit for name, preset in PRESETS.items()} | {"several": FitConfig.several()}
GUIDANCE = {
    "kalman": PRESETS["balanced"].refine,
    "pseudo-inverse": RefineConfig(guidance=PseudoInverse(), steps=28, decoder="exact"),
    "dps": RefineConfig(guidance=DPS(), steps=100, decoder="exact"),
    "published v1": PRESETS["published v1"].refine,
    "published v2": PRESETS["published v2"].refine,
    "kalman, forward only": PRESETS["fast"].refine,
    "kalman, quality": PRESETS["quality"].refine,
    "ding": dataclasses.replace(PRESETS["layouts"].refine, steps=26),
    "ding, layouts": PRESETS["layouts"].refine,
}
RESTORATIONS = {
    "balanced": "kalman",
    "fast": "kalman, forward only",
    "quality": "kalman, quality",
    "layouts": "ding, layouts",
    "published v1": "published v1",
    "published v2": "published v2",
}
"""The guidance of Sample Posterior for each preset, which is also one of Fit Posterior."""
FOR_OPERATORS = [name for name in RESTORATIONS if PRESETS[name].observations != MASKS]
"""Presets for any operator."""
_SAMPLES = 4
"""Samples of which a preset gives the cost."""
PRESET_TOOLTIP = "Cost of four samples in plain generations. " + " ".join(
    f"{name}: {preset.purpose}, {max(preset.cost):.3g}." for name, preset in PRESETS.items()
)


def parse_keypoints(text: str) -> tuple[float, ...] | None:
    """Times from a line such as ``0.55, 0.4``; None for an empty line.

    Raises:
        InputError: a word that is not a number. The library checks order and range.
    """
    words = text.replace(",", " ").split()
    try:
        return tuple(float(word) for word in words) or None
    except ValueError as error:
        raise InputError(
            f"keypoints is {text!r}; use times between 0 and 1 such as 0.55, 0.4, or leave it empty"
        ) from error


def fit_config(
    preset: str, keypoints: str, iterations: int, batch_size: int = 0, decoder: str = "preset", **given: Any
) -> FitConfig:
    """A preset with the user's changes. An empty line, -1 iterations and zeros keep the values of the preset.

    A batch has at most all chains or samples, 0 for all.

    Raises:
        InputError: keypoints that are not decreasing times in (0, 1].
    """
    changes = {name: value for name, value in given.items() if value}
    if times := parse_keypoints(keypoints):
        changes["keypoints"] = times
    if decoder != "preset":
        changes["decoder"] = decoder
    if iterations >= 0:
        changes["iterations"] = iterations
    config = dataclasses.replace(FITS[preset], **changes)
    return dataclasses.replace(config, batch_size=min(batch_size or config.largest_batch, config.largest_batch))


def refine_config(
    num_samples: int, guidance: str, steps: int, batch_size: int, particles: int = 1, decoder: str = "preset"
) -> RefineConfig:
    """Refinement settings. 0 steps keep the default of the guidance; a batch has at most ``num_samples``, 0 for all.

    Raises:
        InputError: particles with another guidance than kalman.
    """
    config = dataclasses.replace(
        GUIDANCE[guidance], batch_size=min(batch_size or num_samples, num_samples), particles=particles
    )
    changes: dict[str, Any] = {"steps": steps} if steps else {}
    if decoder != "preset":
        changes["decoder"] = decoder
    return dataclasses.replace(config, **changes)


def fit_work(config: FitConfig) -> tuple[int, int]:
    """Chains times steps of the start of a fit, and of its iterations."""
    chains = max(config.start_chains, config.components)
    return config.start_steps * chains, config.iterations * config.samples * config.components


def fit_share(preset: str, num_samples: int) -> float:
    """The share of the fit in the work of a preset, for that number of samples."""
    fit = sum(fit_work(PRESETS[preset].fit))
    return fit / (fit + PRESETS[preset].refine.steps * num_samples)


def expected_cost(preset: str, num_samples: int) -> float:
    """The cost of a preset in plain generations of one image, with its fit."""
    four = _SAMPLES * max(PRESETS[preset].cost)
    return four * (1 - fit_share(preset, _SAMPLES)) / (1 - fit_share(preset, num_samples)) * num_samples / _SAMPLES
