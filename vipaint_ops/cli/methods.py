"""``vipaint methods``: a table of the presets and methods."""

from __future__ import annotations

import argparse
import sys

from ..evaluation.cost import Costs
from ..presets import PRESETS, Preset
from ..restoration import METHODS, Method
from .say import show
from .tables import table

_HEADER = ["", "source", "restores", "gradients of", "SD1.5", "SDXL"]
_BELOW = """
Costs are of four samples of a hole, with the fit, on SD1.5 at 512x512 and SDXL at 1024x1024. The unit is a plain
generation of four pictures in 28 steps. vipaint info CHECKPOINT has the cost for a model. docs/samplers.md describes
the methods, docs/results.md compares them."""


def methods(options: argparse.Namespace) -> None:
    """Print the table."""
    lines = [
        [f"--preset {name.replace(' ', '-')}", "VIPaint", preset.observations, *_figures(preset)]
        for name, preset in PRESETS.items()
    ]
    lines += [
        [f"--method {name}", found.source, found.observations, *_figures(found)] for name, found in METHODS.items()
    ]
    show(table(_HEADER, lines, words=4) + "\n" + _BELOW, sys.stdout)


def _figures(method: Preset | Method) -> list[str]:
    """The networks that are differentiated, and the costs."""
    networks = [name for name in Costs._fields if name in method.rows.gradients]
    return [", ".join(networks) or "none", *(f"{cost:.1f}" for cost in method.cost)]
