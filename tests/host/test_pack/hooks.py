"""What the host calls before a node runs, and a value that such calls cannot see."""

from __future__ import annotations

import inspect
import json
import sys

from comfy_api.v0_0_2 import io

import nodes

from .basic import CATEGORY

_HOOKS = ("validate_inputs", "fingerprint_inputs", "check_lazy_status")


class AnyType(str):
    """Fits every input, in hosts that compare types by ``!=`` too."""

    def __ne__(self, other):
        return False

    __hash__ = str.__hash__


class TestLinkedValue:
    """A value in JSON, as an output that fits every input."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "read", (AnyType("*"),)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("STRING", {"default": "null"})}}

    def read(self, value):
        return (json.loads(value),)


class TestHooks:
    """Reports the inputs that the hooks of each of the pack's nodes take, by node id; nodes without are left out."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = CATEGORY, "report", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def report(self):
        pack = {name: node for name, node in nodes.NODE_CLASS_MAPPINGS.items() if name.startswith("VIPaint")}
        taken = {name: sorted(_inputs(node)) for name, node in pack.items()}
        return {"ui": {"report": [{name: inputs for name, inputs in taken.items() if inputs}]}}


def _inputs(node):
    """All inputs that the hooks of a node name, or all that there are for a hook that takes any."""
    inputs = set()
    for hook in _HOOKS:
        function = getattr(node, hook, None)
        if function is None or function.__func__ is getattr(io.ComfyNode, hook).__func__:
            continue
        kinds = {name: parameter.kind for name, parameter in inspect.signature(function).parameters.items()}
        takes_any = inspect.Parameter.VAR_KEYWORD in kinds.values()
        inputs |= {slot.id for slot in node.define_schema().inputs} if takes_any else set(kinds)
    return inputs


class TestFingerprint:
    """Reports the pack's fingerprint of a MODEL."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = CATEGORY, "report", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def report(self, model):
        # ComfyUI names packs by the path of their folder.
        module = next(m for name, m in sys.modules.items() if name.endswith("vipaint.nodes.host.fingerprint"))
        return {"ui": {"report": [{"fingerprint": module.fingerprint(model)}]}}
