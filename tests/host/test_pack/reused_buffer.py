"""Weights as dynamic VRAM hands them out, emulated on any device: in one buffer that the next layer overwrites."""

from __future__ import annotations

import copy

import comfy.model_patcher
import comfy.ops
import torch
from comfy.patcher_extension import WrappersMP

from .basic import CATEGORY

_ALIGNMENT = 64


class _PretendedDynamic(comfy.model_patcher.ModelPatcher):
    """A patcher that says it is dynamic; its clones say so too."""

    def is_dynamic(self):
        return True

    # Asked by ComfyUI of dynamic patchers only.
    def loaded_ram_size(self):
        return self.model_size()

    def set_in_use_by_current_prompt(self, in_use):
        pass


class _ReusedBuffer:
    """While sampling, every layer of ``networks`` gets its weight and bias as new tensors in the same memory."""

    def __init__(self, networks):
        self._layers = {m for network in networks for m in network.modules() if hasattr(m, "comfy_cast_weights")}
        sizes = [sum(p.numel() for p in layer.parameters(recurse=False)) for layer in self._layers]
        self._storage = torch.UntypedStorage(4 * max(sizes) + 2 * _ALIGNMENT)

    def during_sampling(self, executor, *args, **kwargs):
        """A SAMPLER_SAMPLE wrapper: it runs after the model is loaded and around all that the sampler does."""
        original = comfy.ops.cast_bias_weight

        def cast_bias_weight(layer, *args, **kwargs):
            cast = self._cast if layer in self._layers else original
            return cast(layer, *args, **kwargs)

        casting = {layer: vars(layer).get("comfy_cast_weights") for layer in self._layers}
        try:
            comfy.ops.cast_bias_weight = cast_bias_weight
            for layer in self._layers:
                layer.comfy_cast_weights = True
            return executor(*args, **kwargs)
        finally:
            comfy.ops.cast_bias_weight = original
            for layer, before in casting.items():
                if before is None:
                    del layer.comfy_cast_weights
                else:
                    layer.comfy_cast_weights = before

    def _cast(self, layer, input=None, dtype=None, device=None, bias_dtype=None, offloadable=False, **_):
        if dtype is None:
            dtype = layer.weight.dtype if input is None else input.dtype
        weight = self._view(layer.weight, dtype, 0)
        for function in layer.weight_function:
            weight = function(weight)
        bias = getattr(layer, "bias", None)
        if bias is not None:
            offset = -(-weight.nbytes // _ALIGNMENT) * _ALIGNMENT
            bias = self._view(bias, bias_dtype or dtype, offset)
            for function in layer.bias_function:
                bias = function(bias)
        return (weight, bias, None) if offloadable else (weight, bias)

    def _view(self, source, dtype, offset):
        # A tensor of its own, not a view of one, so that autograd's version counters see nothing of the overwriting.
        view = torch.empty(0, dtype=dtype).set_(
            self._storage, offset // dtype.itemsize, source.shape, torch.empty(source.shape, device="meta").stride()
        )
        with torch.no_grad():
            return view.copy_(source)


class TestReusedWeightBuffer:
    """MODEL and VAE whose weights share one buffer while the model is sampled, and whose patchers say they are dynamic.

    The VAE's weights do so too while this MODEL is sampled, as the decoder's gradient is taken then. A gradient that
    keeps weights for its backward pass is wrong without an error; ComfyUI is as it was when sampling ends.
    """

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "emulate", ("MODEL", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}, "optional": {"vae": ("VAE",)}}

    def emulate(self, model, vae=None):
        networks = [model.model] if vae is None else [model.model, vae.first_stage_model]
        model = self._pretend(model)
        model.add_wrapper_with_key(
            WrappersMP.SAMPLER_SAMPLE, "vipaint_reused_buffer", _ReusedBuffer(networks).during_sampling
        )
        if vae is not None:
            vae = copy.copy(vae)
            vae.patcher = self._pretend(vae.patcher)
        return (model, vae)

    def _pretend(self, patcher):
        pretended = patcher.clone()
        pretended.__class__ = _PretendedDynamic
        return pretended
