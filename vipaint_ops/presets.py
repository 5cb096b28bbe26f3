"""The presets: settings of a fit and of its refinement by name, with their purpose and cost."""

from __future__ import annotations

from typing import NamedTuple

from .diffusion.prior import Evaluations
from .evaluation.cost import Rows
from .inference.corrections import Kalman
from .vipaint.config import FitConfig, RefineConfig

ALL, GAUSSIAN, MASKS = "any operator and noise", "any operator, Gaussian noise", "masks, Gaussian noise"
"""Observations that a method can be defined for."""


class Preset(NamedTuple):
    """Settings of a fit with those of its refinement.

    Attributes:
        cost: of four samples of a hole with their fit, SD1.5 512 and SDXL 1024, in units of a plain generation of four
            pictures in 28 steps (``python -m benchmarks.full_size``).
        rows: of that run.
    """

    fit: FitConfig
    refine: RefineConfig
    purpose: str
    cost: tuple[float, float]
    rows: Rows

    @property
    def observations(self) -> str:
        """Those that it is defined for: :data:`ALL`, :data:`GAUSSIAN` or :data:`MASKS`."""
        return {"bound": ALL, "layouts": MASKS}.get(self.fit.objective, GAUSSIAN)

    def rows_together(self, samples: int) -> int:
        """The largest batch with gradients, for that many samples."""
        return rows_together(self.fit, self.refine, samples)


def rows_together(fit: FitConfig, refine: RefineConfig, samples: int) -> int:
    """The largest batch with gradients: chains of the start, walks of the fit, samples."""
    if fit.objective == "layouts":
        return min(fit.largest_batch, fit.batch_size)
    return max(fit.largest_batch, min(samples, refine.batch_size))


_FORWARD = Kalman(linear_iterations=1, spread_iterations=1, exact_below=0.0)

PRESETS: dict[str, Preset] = {
    "balanced": Preset(
        FitConfig(),
        RefineConfig(),
        "for most pictures",
        (6.5, 5.3),
        Rows(Evaluations(28, 0, 29, 0, 2, 0, 48), Evaluations(132, 0, 193, 48, 6, 0, 304)),
    ),
    "fast": Preset(
        FitConfig(guidance=_FORWARD),
        RefineConfig(guidance=Kalman(exact_below=0.0), steps=14, attempts=1),
        "for a first look, and for quantised and compiled models",
        (2.8, 2.2),
        Rows(Evaluations(28, 0, 29, 0, 2, 0, 48), Evaluations(60, 0, 65, 0, 2, 0, 136)),
    ),
    "quality": Preset(
        FitConfig(guidance=Kalman()),
        RefineConfig(guidance=Kalman(linear_iterations=3, exact_below=0.1), steps=40),
        "for details",
        (10.7, 9.1),
        Rows(Evaluations(28, 0, 29, 0, 2, 0, 96), Evaluations(164, 0, 321, 144, 6, 0, 488)),
    ),
    "layouts": Preset(
        FitConfig.layouts(),
        RefineConfig(guidance=_FORWARD, chain="ding", steps=8, attempts=1),
        "for many samples of an image, and for large holes at its border",
        (13.5, 16.8),
        Rows(Evaluations(800, 480, 48, 0, 50, 0, 0), Evaluations(60, 0, 16, 0, 13, 0, 0)),
    ),
    "published v1": Preset(
        FitConfig.published_v1(),
        RefineConfig.published_v1(),
        "settings of the VIPaint paper (arXiv 2411.18929, 2024), for comparisons",
        (93.9, 115.3),
        Rows(Evaluations(750, 750, 250, 250, 1, 0, 0), Evaluations(1604, 1600, 1604, 1600, 0, 0, 0)),
    ),
    "published v2": Preset(
        FitConfig.published_v2(),
        RefineConfig.published_v2(),
        "settings of its second version (AISTATS 2026), for comparisons",
        (66.7, 81.0),
        Rows(Evaluations(600, 600, 50, 50, 1, 0, 0), Evaluations(2004, 996, 1000, 996, 0, 0, 0)),
    ),
}
"""The presets by name."""
