"""Models that cannot be differentiated, or not rightly, or not in the memory there is."""

from __future__ import annotations

import torch

from .basic import CATEGORY


def _detached(apply_model, arguments):
    return _predict(apply_model, arguments).detach()


def _half_detached(apply_model, arguments):
    prediction = _predict(apply_model, arguments)
    return (prediction + prediction.detach()) / 2


def _too_large(apply_model, arguments):
    if torch.is_grad_enabled():
        raise torch.OutOfMemoryError("not enough memory")
    return _predict(apply_model, arguments)


def _much_too_large(apply_model, arguments):
    raise torch.OutOfMemoryError("not enough memory")


def _predict(apply_model, arguments):
    return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])


_DEFECTS = {
    "no gradient": _detached,
    "half a gradient": _half_detached,
    "out of memory": _too_large,
    "out of memory at once": _much_too_large,
}


class TestSpoiltModel:
    """MODEL with a function wrapper that has a defect, as quantised kernels or a small graphics card would."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "spoil", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "defect": (list(_DEFECTS),)}}

    def spoil(self, model, defect):
        model = model.clone()
        model.set_model_unet_function_wrapper(_DEFECTS[defect])
        return (model,)
