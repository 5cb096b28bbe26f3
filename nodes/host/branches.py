"""The gradients that a method takes, and the prediction of the positive conditions within a guided one."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Flag
from functools import reduce
from operator import or_
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...vipaint_ops.inference.corrections import GRADIENTS

_HOOK = "sampler_calc_cond_batch_function"


class Gradients(Flag):
    """Gradients that a method takes (``GRADIENTS`` of the library). Other networks run as in ComfyUI's own samplers.

    ``COVARIANCE`` is that of the positive conditions' prediction alone, ``CHAIN`` one through VAE and model at once.
    """

    NONE = 0
    MODEL = 1
    COVARIANCE = 2
    VAE = 4
    CHAIN = 8
    ANY_MODEL = MODEL | COVARIANCE
    ALL = MODEL | VAE | CHAIN


def gradients_of(names: Iterable[str]) -> Gradients:
    """The gradients with these names in the library."""
    flags = (Gradients.MODEL, Gradients.COVARIANCE, Gradients.VAE, Gradients.CHAIN)
    by_name = dict(zip(GRADIENTS, flags, strict=True))
    return reduce(or_, (by_name[name] for name in names), Gradients.NONE)


class PositiveBranch:
    """Takes gradients of the positive conditions only, in one call of a guider.

    Attributes:
        prediction: of the positive conditions, with its gradient. None if there are no negative conditions (cfg 1), or
            if the guider does not predict by ``comfy.samplers.sampling_function``, or if a patch replaces that step:
            then the guided prediction has its whole gradient.
    """

    def __init__(self) -> None:
        self.prediction: Tensor | None = None

    def options(self, model_options: dict[str, Any]) -> dict[str, Any]:
        """``model_options`` for that call."""
        return model_options if _HOOK in model_options else model_options | {_HOOK: self._predict}

    def _predict(self, arguments: dict[str, Any]) -> list[Tensor]:
        names = ("model", "conds", "input", "sigma", "model_options")
        model, (positive, negative), x, sigma, options = (arguments[name] for name in names)
        if negative is None:
            return comfy.samplers.calc_cond_batch(model, [positive, negative], x, sigma, options)
        prediction, _ = comfy.samplers.calc_cond_batch(model, [positive, None], x, sigma, options)
        with torch.no_grad():
            _, other = comfy.samplers.calc_cond_batch(model, [None, negative], x.detach(), sigma, options)
        self.prediction = prediction
        return [prediction.detach(), other]
