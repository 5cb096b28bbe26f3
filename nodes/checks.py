"""One check of the inputs of every node, by its schema, before the node runs.

ComfyUI converts the values of widgets, and compares those with a range. It does not check values that come by a link,
nor that a number is one (no comparison refuses NaN); older versions do not check choices.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from comfy_api.v0_0_2 import io

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.measurement.observation import Observation
from ..vipaint_ops.settings import Range, check_number
from ..vipaint_ops.vipaint import HierarchicalPosterior
from .crop import Cut
from .pictures import check_image, check_mask

_OBJECTS = {
    "VIPAINT_OBSERVATION": (Observation, "an Observe node"),
    "VIPAINT_POSTERIOR": (HierarchicalPosterior, "Fit Posterior or Load Posterior"),
    "VIPAINT_STITCH": (Cut, "Crop for Inpainting"),
}
"""Class of the values of each socket of the pack, and the node that makes them."""
_PARTS = {
    "MODEL": ("model", "model_options"),
    "VAE": ("first_stage_model", "patcher", "spacial_compression_decode"),
    "GUIDER": ("model_patcher", "original_conds", "sample"),
}
"""Attributes that tell ComfyUI's objects from others."""
_SHOWN = 60
"""Characters of a wrong value in a message."""


def checked(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node, with its inputs checked before each run.

    A node checks the options and ranges of its ``open_inputs`` itself: names of files, whose list may have changed
    since, and numbers that other nodes may give beyond the range of the widget.
    """
    run = node.execute.__func__

    @functools.cache
    def declared_inputs() -> tuple[list[io.Input], bool]:
        schema, open_inputs = node.define_schema(), getattr(node, "open_inputs", ())
        declared = [_opened(one) if one.id in open_inputs else one for one in schema.inputs]
        return sorted(declared, key=lambda one: one.get_io_type() not in _WIDGETS), schema.is_input_list

    @functools.wraps(run)
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        declared, listed = declared_inputs()
        given = {one.id: _checked(one, inputs[one.id], listed) for one in declared if one.id in inputs}
        return run(cls, **inputs | given)

    node.execute = classmethod(execute)
    return node


def _opened(declared: io.Input) -> io.Input:
    """The input without options and range."""
    opened = copy.copy(declared)
    opened.options, opened.min, opened.max = None, -math.inf, math.inf
    return opened


def _checked(declared: io.Input, given: Any, listed: bool) -> Any:
    """What is given for an input: numbers as Python's own, all else unchanged. ``listed``: for nodes that take lists.

    Raises:
        InputError: it is not what the schema says.
    """
    if _is_link(given) and (declared.extra_dict or {}).get("rawLink"):
        return given  # the node that it is passed to checks its value
    check = _WIDGETS.get(declared.get_io_type(), _socket)
    if not listed:
        return check(declared, given)
    if not given:
        raise InputError(f"{declared.id} is an empty list: check the node that made it")
    return [check(declared, item) for item in given]


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _float(declared: io.Input, value: Any) -> float:
    return float(_in_range(declared, value))


def _int(declared: io.Input, value: Any) -> int:
    return _in_range(declared, value, whole=True)


def _in_range(declared: io.Input, value: Any, whole: bool = False) -> Any:
    number = value.item() if isinstance(value, np.generic) else value
    check_number(declared.id, number, Range(declared.min, declared.max, whole=whole))
    return number


def _boolean(declared: io.Input, value: Any) -> bool:
    if not isinstance(value, Integral) or value not in (0, 1):
        raise InputError(f"{declared.id} is {_short(value)}; it must be true or false")
    return bool(value)


def _choice(declared: io.Input, value: Any) -> str:
    if declared.options is None:
        return _string(declared, value)
    if not isinstance(value, str) or value not in declared.options:
        raise InputError(f"{declared.id} is {_short(value)}; choose one of {', '.join(declared.options)}")
    return value


def _string(declared: io.Input, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{declared.id} is {_short(value)}; it must be a text")
    return value


def _socket(declared: io.Input, value: Any) -> Any:
    if value is not None or not declared.optional:
        check = _SOCKETS.get(declared.get_io_type(), _check_object)
        check(declared, value)
    return value


def _check_conditioning(declared: io.Input, value: Any) -> None:
    pairs = isinstance(value, (list, tuple)) and all(isinstance(part, (list, tuple)) for part in value)
    if not pairs or not all(len(part) == 2 and isinstance(part[1], Mapping) for part in value):
        raise InputError(f"{declared.id} is {_short(value)}; connect a prompt, as from CLIP Text Encode")


def _check_object(declared: io.Input, value: Any) -> None:
    kind = declared.get_io_type()
    if kind in _OBJECTS and not isinstance(value, _OBJECTS[kind][0]):
        raise InputError(f"{declared.id} is {_short(value)}; connect {_OBJECTS[kind][1]}")
    if not all(hasattr(value, part) for part in _PARTS.get(kind, ())):
        raise InputError(f"{declared.id} is {_short(value)}, not a {kind}: connect a node that loads or makes one")


def _short(value: Any) -> str:
    """The value where it is short, or its type."""
    plain = isinstance(value, (str, int, float)) or value is None
    return repr(value)[:_SHOWN] if plain else f"a {type(value).__name__}"


_WIDGETS: dict[str, Callable[[io.Input, Any], Any]] = {
    "FLOAT": _float,
    "INT": _int,
    "BOOLEAN": _boolean,
    "COMBO": _choice,
    "STRING": _string,
}
_SOCKETS: dict[str, Callable[[io.Input, Any], None]] = {
    "IMAGE": lambda declared, value: check_image(value, declared.id),
    "MASK": lambda declared, value: check_mask(value, declared.id),
    "CONDITIONING": _check_conditioning,
}
