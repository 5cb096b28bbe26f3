"""The pack's own socket types, the seed widget, and outputs named alike in every ComfyUI."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

ObservationSocket = io.Custom("VIPAINT_OBSERVATION")
PosteriorSocket = io.Custom("VIPAINT_POSTERIOR")
SEED = {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}


def output(kind: Any, name: str, tooltip: str) -> Any:
    """An output of a node; without a display name, older ComfyUI shows its type in the place of its name."""
    return kind.Output(name, display_name=name, tooltip=tooltip)
