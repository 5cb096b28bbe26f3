"""The presets: settings of a fit and of its refinement by name, with their purpose and cost."""

from __future__ import annotations

from typing import NamedTuple

from .inference.corrections import Kalman
from .vipaint.config import FitConfig, RefineConfig


class Preset(NamedTuple):
    """Settings of a fit with those of its refinement.

    Attributes:
        cost: of four samples of a hole with their fit, SD1.5 512 and SDXL 1024, in units of a plain generation of four
            pictures in 28 steps (``python -m benchmarks.full_size``).
    """

    fit: FitConfig
    refine: RefineConfig
    purpose: str
    cost: tuple[float, float]


_FORWARD = Kalman(linear_iterations=1, spread_iterations=1, exact_below=0.0)

PRESETS: dict[str, Preset] = {
    "balanced": Preset(FitConfig(), RefineConfig(), "for most pictures", (6.5, 5.3)),
    "fast": Preset(
        FitConfig(guidance=_FORWARD),
        RefineConfig(guidance=_FORWARD, chain="ding", steps=26, attempts=1),
        "for a first look, and for quantised and compiled models",
        (3.0, 2.6),
    ),
    "quality": Preset(
        FitConfig(guidance=Kalman()),
        RefineConfig(guidance=Kalman(linear_iterations=3, exact_below=0.1), steps=40),
        "for details",
        (10.7, 9.1),
    ),
    "published v1": Preset(
        FitConfig.published_v1(),
        RefineConfig.published_v1(),
        "settings of the VIPaint paper (arXiv 2411.18929, 2024), for comparisons",
        (93.9, 115.3),
    ),
    "published v2": Preset(
        FitConfig.published_v2(),
        RefineConfig.published_v2(),
        "settings of its second version (AISTATS 2026), for comparisons",
        (66.7, 81.0),
    ),
}
"""The presets by name."""
