"""The gradients that this pack takes through a model and its VAE, against finite differences."""

from __future__ import annotations

import sys

import torch

from .basic import CATEGORY, generator, integer


def _host():
    """The pack's module; ComfyUI names packs by the path of their folder."""
    return next(module for name, module in sys.modules.items() if name.endswith("vipaint.nodes.host.prior"))


def compare(function, x, step):
    """Both derivatives of a random functional of ``function`` at ``x``, along the gradient found."""
    with torch.no_grad():
        functional = torch.randn(function(x).shape, generator=generator(7))
    functional = functional / functional.norm()
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        gradient = torch.autograd.grad((functional * function(leaf)).sum(), leaf)[0]
    direction = gradient / gradient.norm()
    with torch.no_grad():
        ahead, behind = (function(x + sign * step * x.norm() * direction) for sign in (1, -1))
    difference = (functional * (ahead - behind)).sum() / (2 * step * x.norm())
    return {"automatic": float(gradient.norm()), "finite_difference": float(difference)}


class TestPackCondition:
    """Reports predictions, with and without the condition's own, and the rows that they send through the model."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = CATEGORY, "compare", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"guider": ("GUIDER",), "vae": ("VAE",)}}

    def compare(self, guider, vae):
        network, host, rows = guider.model_patcher.model.diffusion_model, _host(), []

        def work(prior):
            z, t = torch.randn(2, *prior.latent_shape, generator=generator(0)), torch.full((2,), 0.5)

            def report(function, x):
                rows.clear()
                found = function(x, t)
                guided, conditional = found if isinstance(found, tuple) else (found, found)
                values = {"guided": guided.flatten().tolist(), "conditional": conditional.flatten().tolist()}
                return {**values, "rows": sum(rows)}

            return {
                "guided": report(prior.denoise, z),
                "both": report(prior.denoise_with_condition, z),
                "condition": report(prior.denoise_condition, z),
                "moved": report(prior.denoise_condition, z + 0.1),
                "moved both": report(prior.denoise_with_condition, z + 0.1),
            }

        with network.register_forward_pre_hook(lambda _, given: rows.append(len(given[0]))):
            report = host.with_host_prior(
                guider, vae, host.Part((64, 64), (64, 64)), work, rows=2, gradients=host.Gradients.NONE
            )
        return {"ui": {"report": [report]}}


class TestPackGradient:
    """Reports the derivatives of denoiser, decoder and encoder, through the pack, at time ``t``."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = CATEGORY, "compare", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "guider": ("GUIDER",),
                "vae": ("VAE",),
                "height": integer(64),
                "width": integer(64),
                "t": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0}),
                "checkpointing": (["auto", "on", "off"],),
                "step": ("FLOAT", {"default": 0.003, "min": 1e-6, "max": 1.0, "step": 1e-6}),
                "batch": integer(1),
            }
        }

    def compare(self, guider, vae, height, width, t, checkpointing, step, batch):
        def work(prior):
            z = torch.randn(batch, *prior.latent_shape, generator=generator(0))
            times = torch.full((batch,), t)
            with torch.no_grad():
                z0 = prior.denoise(z, times)
                picture = prior.decode(z0)
            return {
                "denoiser": compare(lambda v: prior.denoise(v, times), z, step),
                # Kinks of the ReLUs in a small decoder lie close together.
                "decoder": compare(prior.decode, z0, step / 10),
                "encoder": compare(prior.encode, picture, step / 10),
            }

        host, side = _host(), (height, width)
        report = host.with_host_prior(guider, vae, host.Part(side, side), work, rows=batch, checkpointing=checkpointing)
        return {"ui": {"report": [report]}}
