"""The pack's gradient of a decoded batch with little free memory, against the same with plenty."""

from __future__ import annotations

from unittest.mock import patch

import comfy.model_management
import torch

from .basic import CATEGORY, generator, integer
from .pack_gradient import _host

PLENTY = 1 << 40


class TestPackMemory:
    """Reports how a batch runs with ``free`` KiB of memory, and how far pictures and gradients are from the whole's."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = CATEGORY, "compare", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "guider": ("GUIDER",),
                "vae": ("VAE",),
                "height": integer(64),
                "width": integer(64),
                "rows": integer(4),
                "free": integer(1),
                "gradients": (["ALL", "MODEL", "NONE"],),
            }
        }

    def compare(self, guider, vae, height, width, rows, free, gradients):
        network, host = vae.first_stage_model, _host()
        decoded = []

        def work(prior):
            z = torch.randn(rows, *prior.latent_shape, generator=generator(0))
            with torch.enable_grad():
                leaf = z.clone().requires_grad_()
                decoded.clear()
                picture = prior.decode(leaf)
                shapes = [list(shape) for shape in decoded]
                gradient = leaf.detach()
                if picture.requires_grad:
                    weight = torch.randn(picture.shape, generator=generator(1))
                    (gradient,) = torch.autograd.grad((weight * picture).sum(), leaf)
                denoised = prior.denoise(leaf, torch.full((rows,), 0.5))
            flags = {"decoder": picture.requires_grad, "denoiser": denoised.requires_grad}
            return picture.detach(), gradient, {"rows": prior.rows, "decoded": shapes, **flags}

        def run(memory):
            def free_memory(device=None, torch_free_too=False):
                return (memory, memory) if torch_free_too else memory

            side = (height, width)
            settings = {"rows": rows, "gradients": host.Gradients[gradients]}
            with patch.object(comfy.model_management, "get_free_memory", free_memory):
                return host.with_host_prior(guider, vae, host.Part(side, side), work, **settings)

        original = type(network).decode

        def recorded(self, z, *arguments, **options):
            decoded.append(z.shape)
            return original(self, z, *arguments, **options)

        with patch.object(type(network), "decode", recorded):
            whole, expected, _ = run(PLENTY)
            picture, gradient, report = run(free * 1024)
        report["picture error"] = float((picture - whole).norm() / whole.norm())
        report["gradient error"] = float((gradient - expected).norm() / expected.norm())
        return {"ui": {"report": [report]}}
