"""Settings of the presets in the nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, NamedTuple

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.inference.corrections import DPS, PseudoInverse
from ..vipaint_ops.vipaint import FitConfig, RefineConfig

FITS = {
    "quality": FitConfig,
    "fast": FitConfig.fast,
    "several": FitConfig.several,
    "published v1": FitConfig.published_v1,
    "published v2": FitConfig.published_v2,
}
GUIDANCE = {
    "kalman": RefineConfig,
    "pseudo-inverse": lambda: RefineConfig(guidance=PseudoInverse()),
    "dps": lambda: RefineConfig(guidance=DPS(), steps=100),
    "published v1": RefineConfig.published_v1,
    "published v2": RefineConfig.published_v2,
}


class Restoration(NamedTuple):
    """A preset of the all-in-one nodes: a preset of Fit Posterior, with settings of Sample Posterior."""

    fit: str
    guidance: str = "kalman"
    steps: int = 0


RESTORATIONS = {
    "quality": Restoration("quality"),
    "balanced": Restoration("fast"),
    "fast": Restoration("fast", steps=16),
    "published v1": Restoration("published v1", "published v1"),
    "published v2": Restoration("published v2", "published v2"),
}
"""Three budgets (docs/results.md) and the published settings."""


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


def fit_config(preset: str, keypoints: str, iterations: int, batch_size: int = 0, **given: Any) -> FitConfig:
    """A preset with the user's changes. An empty line, -1 iterations and zeros keep the values of the preset.

    A batch has at most all chains or samples, 0 for all.

    Raises:
        InputError: keypoints that are not decreasing times in (0, 1].
    """
    check_choice("preset", preset, FITS)
    changes = {name: value for name, value in given.items() if value}
    if times := parse_keypoints(keypoints):
        changes["keypoints"] = times
    if iterations >= 0:
        changes["iterations"] = iterations
    config = dataclasses.replace(FITS[preset](), **changes)
    most = max(config.samples, config.start_chains)
    return dataclasses.replace(config, batch_size=min(batch_size or most, most))


def refine_config(num_samples: int, guidance: str, steps: int, batch_size: int, particles: int = 1) -> RefineConfig:
    """Refinement settings. 0 steps keep the default of the guidance; a batch has at most ``num_samples``, 0 for all.

    Raises:
        InputError: particles with another guidance than kalman.
    """
    check_choice("guidance", guidance, GUIDANCE)
    config = dataclasses.replace(
        GUIDANCE[guidance](), batch_size=min(batch_size or num_samples, num_samples), particles=particles
    )
    return dataclasses.replace(config, steps=steps) if steps else config


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Check the value of a combo, which older ComfyUI versions do not check.

    Raises:
        InputError: the value of the input ``name`` is none of ``choices``.
    """
    if value not in choices:
        raise InputError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
