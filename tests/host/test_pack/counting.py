"""What a run sends through a model."""

from __future__ import annotations

from .basic import CATEGORY

_cells: list[int] = []


class TestCountCells:
    """The model, and a count of the latent cells of all rows that pass through it from now on."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "count", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "name": ("STRING",)}}

    def count(self, model, name):
        _cells.clear()
        network = model.model.diffusion_model
        network.register_forward_pre_hook(lambda _, given: _cells.append(len(given[0]) * given[0][0, 0].numel()))
        return (model,)


class TestCountedCells:
    """Reports the count when ``image`` is there."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = CATEGORY, "report", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def report(self, image):
        return {"ui": {"report": [{"cells": sum(_cells), "largest": max(_cells), "passes": len(_cells)}]}}
