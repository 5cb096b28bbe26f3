"""The gradients that a method takes, and the prediction of the positive conditions within a guided one."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Flag
from functools import reduce
from operator import or_
from typing import Any

import comfy.samplers
from torch import Tensor

from ...vipaint_ops.inference.corrections import GRADIENTS

_HOOK = "sampler_calc_cond_batch_function"


class Gradients(Flag):
    """Gradients that a method takes (``GRADIENTS`` of the library). Other networks run as in ComfyUI's own samplers.

    ``CHAIN`` is one through VAE and model at once.
    """

    NONE = 0
    MODEL = 1
    VAE = 2
    CHAIN = 4
    ALL = MODEL | VAE | CHAIN


def gradients_of(names: Iterable[str]) -> Gradients:
    """The gradients with these names in the library."""
    by_name = dict(zip(GRADIENTS, (Gradients.MODEL, Gradients.VAE, Gradients.CHAIN), strict=True))
    return reduce(or_, (by_name[name] for name in names), Gradients.NONE)


class PositiveBranch:
    """The prediction of the positive conditions in one call of a guider, and at other latents after it.

    Attributes:
        options: model options for that call.
        prediction: None before that call, and for guiders that do not predict by ``comfy.samplers.sampling_function``
            or models with a patch in its place.
    """

    prediction: Tensor | None = None

    def __init__(self, model_options: dict[str, Any]):
        self._call: dict[str, Any] = {}
        self.options = model_options if _HOOK in model_options else model_options | {_HOOK: self._predict}

    def at(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The prediction at other latents."""
        return self._predictions(self._call["conds"][:1], x, sigma)[0]

    def _predict(self, call: dict[str, Any]) -> list[Tensor]:
        self._call = call
        found = self._predictions(call["conds"], call["input"], call["sigma"])
        self.prediction = found[0]
        return found

    def _predictions(self, conditions: list[Any], x: Tensor, sigma: Tensor) -> list[Tensor]:
        return comfy.samplers.calc_cond_batch(self._call["model"], conditions, x, sigma, self._call["model_options"])
