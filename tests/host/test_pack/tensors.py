"""Tensors of any shape, type and content, and what became of them."""

from __future__ import annotations

import json

import torch

from .basic import CATEGORY, generator
from .hooks import AnyType

_FILLS = {
    "zeros": 0.0,
    "ones": 1.0,
    "nan": float("nan"),
    "inf": float("inf"),
    "large": 3e38,
    "negative": -5.0,
}


class TestTensor:
    """A tensor of ``shape`` (JSON) as an output that fits every input, in a dictionary for LATENT."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "make", (AnyType("*"),)

    @classmethod
    def INPUT_TYPES(cls):
        texts = {name: ("STRING", {"default": ""}) for name in ("shape", "fill", "dtype")}
        return {"required": {**texts, "latent": ("BOOLEAN", {"default": False})}}

    def make(self, shape, fill, dtype, latent):
        numbers = torch.rand(json.loads(shape), generator=generator(0))
        if fill == "one nan" and numbers.numel():
            numbers.view(-1)[0] = float("nan")
        if fill in _FILLS:
            numbers = torch.full_like(numbers, _FILLS[fill])
        made = numbers.to(getattr(torch, dtype))
        return ({"samples": made} if latent else made,)


class TestSink:
    """Reports whether all numbers that arrive are finite."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE, INPUT_IS_LIST = CATEGORY, "report", (), True, True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": (AnyType("*"),)}}

    def report(self, value):
        tensors = list(_tensors(value))
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
        return {"ui": {"report": [{"finite": finite, "tensors": len(tensors)}]}}


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, float):
        yield torch.tensor(value)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
