"""What a run sends through a model."""

from __future__ import annotations

from .basic import CATEGORY

_cells: list[int] = []


class TestCountCells:
    """A model that counts the latent cells of the rows that pass through it."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "count", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "name": ("STRING",)}}

    def count(self, model, name):
        def predict(apply, given):
            rows = given["input"]
            _cells.append(len(rows) * rows[0, 0].numel())
            return apply(rows, given["timestep"], **given["c"])

        _cells.clear()
        counted = model.clone()
        counted.set_model_unet_function_wrapper(predict)
        return (counted,)


class TestCountedCells:
    """Reports the count when ``image`` is there."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = CATEGORY, "report", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def report(self, image):
        return {"ui": {"report": [{"cells": sum(_cells), "largest": max(_cells), "passes": len(_cells)}]}}
