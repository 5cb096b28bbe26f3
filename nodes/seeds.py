"""Seeds that have no effect with the other settings of their node.

ComfyUI runs a node again, and all nodes after it, if any of its values has changed. A seed without effect is therefore
set to 0 in the prompt, before ComfyUI compares it with the last one.
"""

from __future__ import annotations

from typing import Any

from server import PromptServer

_FIXED: dict[str, tuple[str, tuple[str, ...]]] = {
    "VIPaintMakeMask": ("kind", ("box", "half plane", "outpaint border", "every k-th pixel")),
    "VIPaintDemoScene": ("hole", ("half", "box")),
    "VIPaintObserveMotionBlur": ("kind", ("straight",)),
}
"""Per node id: the choice that decides, and its values with which the seed has no effect."""


def register() -> None:
    """Have ComfyUI pass each prompt through :func:`without_unused_seeds`."""
    PromptServer.instance.add_on_prompt_handler(without_unused_seeds)


def without_unused_seeds(request: dict[str, Any]) -> dict[str, Any]:
    """The request of a prompt, in which seeds without effect are 0. Linked seeds and choices are left as they are."""
    for node in request.get("prompt", {}).values():
        choice, values = _FIXED.get(node.get("class_type"), ("", ()))
        inputs = node.get("inputs", {})
        if inputs.get(choice) in values and isinstance(inputs.get("seed"), int):
            inputs["seed"] = 0
    return request
