"""The denoiser's gradient taken the plain way, without any of the pack's precautions, against finite differences."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import torch

from .basic import CATEGORY, generator, integer


class _Probe(comfy.samplers.Sampler):
    """Compares both derivatives of a random functional of the prediction, along the gradient found."""

    def __init__(self, step):
        self.step, self.report = step, {}

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, *_):
        with torch.inference_mode(False), torch.enable_grad():
            _leave_inference_mode(model_wrap.inner_model)
            x, sigma = noise.clone() * max(1.0, float(sigmas[0])), sigmas[:1].clone().expand(len(noise))
            functional = torch.randn(x.shape, generator=generator(7)) / x.numel() ** 0.5

            def loss(x):
                return (model_wrap(x, sigma, **extra_args) * functional).sum()

            gradient = torch.autograd.grad(loss(x.requires_grad_()), x)[0]
            direction = gradient / gradient.norm()
            step = self.step * x.detach().norm()
            with torch.no_grad():
                difference = loss(x + step * direction) - loss(x - step * direction)
        self.report = {"automatic": float(gradient.norm()), "finite_difference": float(difference / (2 * step))}
        return noise


class TestPlainGradient:
    """Reports the derivative of the denoiser at the first of ``sigmas`` by autograd and by finite differences."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = CATEGORY, "compare", (), True

    @classmethod
    def INPUT_TYPES(cls):
        step = ("FLOAT", {"default": 0.003, "min": 1e-6, "max": 1.0, "step": 1e-6})
        inputs = {"guider": ("GUIDER",), "latent": ("LATENT",), "sigmas": ("SIGMAS",), "seed": integer(0), "step": step}
        return {"required": inputs}

    def compare(self, guider, latent, sigmas, seed, step):
        probe = _Probe(step)
        samples = comfy.sample.fix_empty_latent_channels(guider.model_patcher, latent["samples"])
        noise = torch.randn(samples.shape, generator=generator(seed))
        guider.sample(noise, samples, probe, sigmas, seed=seed)
        return {"ui": {"report": [probe.report]}}


def _leave_inference_mode(network):
    """Parameters and buffers as ordinary tensors in the same memory."""
    for module in network.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                module._parameters[name] = torch.nn.Parameter(_ordinary(tensor), requires_grad=False)
        for name, tensor in module._buffers.items():
            if tensor is not None:
                module._buffers[name] = _ordinary(tensor)


def _ordinary(tensor):
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
