"""Socket types of the pack, the seed widgets, and named outputs."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

ObservationSocket = io.Custom("VIPAINT_OBSERVATION")
PosteriorSocket = io.Custom("VIPAINT_POSTERIOR")
SEED = {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}
"""A seed that is drawn anew for each run."""
_KEPT = io.ControlAfterGenerate.fixed if hasattr(io, "ControlAfterGenerate") else True
FIXED_SEED = SEED | {"control_after_generate": _KEPT}
"""A seed that is kept, as another one repeats a fit. Older ComfyUI draws all seeds anew unless the user fixes them."""


def output(kind: Any, name: str, tooltip: str) -> Any:
    """An output with a display name. Without one, older ComfyUI shows its type as name."""
    return kind.Output(name, display_name=name, tooltip=tooltip)
