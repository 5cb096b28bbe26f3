"""What a model sees of the conditions that lie on its picture."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from .basic import CATEGORY
from .pack_gradient import _host


class TestPackSeen:
    """The hint that a ControlNet sees, and the channels beside the latent, in one prediction for an observation."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "see", ("IMAGE", "IMAGE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"guider": ("GUIDER",), "vae": ("VAE",), "observation": ("VIPAINT_OBSERVATION",)}}

    def see(self, guider, vae, observation):
        host, network = _host(), guider.model_patcher.model.diffusion_model
        control = guider.original_conds["positive"][0].get("control")
        hints, channels = [torch.zeros(1, 1, 1, 1)], []

        def work(prior):
            prior.denoise(torch.zeros(1, *prior.latent_shape), torch.full((1,), 0.5))

        with ExitStack() as stack:
            hook = network.register_forward_pre_hook(lambda _, given: channels.append(given[0][:1, 4:].clone()))
            stack.callback(hook.remove)
            if control is not None:
                stack.callback(
                    control.control_model.register_forward_pre_hook(
                        lambda _, given, named: hints.append(named["hint"][:1].clone()), with_kwargs=True
                    ).remove
                )
            _, part = host.pad_to_model(observation, vae)
            host.with_host_prior(guider, vae, part, work, rows=1, gradients=host.Gradients.NONE)
        return hints[-1].movedim(1, -1), channels[-1].movedim(1, -1)
