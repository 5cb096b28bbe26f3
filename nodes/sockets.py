"""Socket types of the pack, the seed widget, and named outputs."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

ObservationSocket = io.Custom("VIPAINT_OBSERVATION")
PosteriorSocket = io.Custom("VIPAINT_POSTERIOR")
SEED = {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}


def output(kind: Any, name: str, tooltip: str) -> Any:
    """An output with a display name. Without one, older ComfyUI shows its type as name."""
    return kind.Output(name, display_name=name, tooltip=tooltip)
