"""What goes in and what comes out: conditioning and latents from a seed, tensors to files, the state of a model."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from safetensors.torch import save_file

CATEGORY = "VIPaint tests"


def integer(default: int, least: int = 0) -> tuple[str, dict[str, int]]:
    """The declaration of an integer input."""
    return ("INT", {"default": default, "min": least, "max": 1 << 32})


def generator(seed: int) -> torch.Generator:
    """Seeded, on the CPU."""
    return torch.Generator().manual_seed(seed)


class TestConditioning:
    """CONDITIONING without a text encoder: ``[1, length, width]`` normal numbers, ``[1, pooled]`` pooled.

    ``attention_mask`` adds one of ones, as the text encoders of Lumina 2 and Qwen-Image do.
    """

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "make", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        sizes = {"length": integer(8, 1), "width": integer(64, 1), "pooled": integer(32)}
        return {"required": {**sizes, "attention_mask": ("BOOLEAN", {"default": False}), "seed": integer(0)}}

    def make(self, length, width, pooled, attention_mask, seed):
        numbers = generator(seed)
        text = torch.randn(1, length, width, generator=numbers)
        extra = {"pooled_output": torch.randn(1, pooled, generator=numbers)} if pooled else {}
        if attention_mask:
            extra["attention_mask"] = torch.ones(1, length, dtype=torch.long)
        return ([[text, extra]],)


class TestLatent:
    """LATENT of zeros; ``nonce`` changes nothing but that ComfyUI takes it for another input."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "make", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):
        sizes = {"channels": integer(4, 1), "height": integer(8, 1), "width": integer(8, 1), "batch": integer(1, 1)}
        return {"required": {**sizes, "nonce": integer(0)}}

    def make(self, channels, height, width, batch, nonce):
        return ({"samples": torch.zeros(batch, channels, height, width)},)


class TestBadImage:
    """``image`` with a defect."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "spoil", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "defect": (["nan", "out of range"],)}}

    def spoil(self, image, defect):
        spoilt = image.clone()
        spoilt[0, 0, 0] = float("nan") if defect == "nan" else 40.0
        return (spoilt,)


class TestSaveTensor:
    """Writes a LATENT's samples or an IMAGE in full precision: ``value`` of a safetensors file in the output folder."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = CATEGORY, "save", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"optional": {"latent": ("LATENT",), "image": ("IMAGE",)}, "hidden": {"node_id": "UNIQUE_ID"}}

    def save(self, node_id, latent=None, image=None):
        value = image if latent is None else latent["samples"]
        output = Path(folder_paths.get_output_directory())
        name = f"tensor_{node_id}_{len(list(output.glob('tensor_*')))}.safetensors"
        save_file({"value": value.detach().float().cpu().contiguous()}, output / name)
        return {"ui": {"files": [name]}}


class TestModelState:
    """Reports what a sampling run must not leave behind: on a model, its VAE if given, and in ComfyUI itself."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = CATEGORY, "report", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "nonce": integer(0)}, "optional": {"vae": ("VAE",)}}

    def report(self, model, nonce, vae=None):
        modules = list(model.model.modules()) + ([] if vae is None else list(vae.first_stage_model.modules()))
        parameters = [p for module in modules for p in module.parameters(recurse=False)]
        state = {
            "patched_forwards": sum("forward" in vars(module) for module in modules),
            "weight_functions": sum(bool(getattr(module, "weight_function", [])) for module in modules),
            "forced_casts": sum("comfy_cast_weights" in vars(module) for module in modules),
            "requires_grad": sum(p.requires_grad for p in parameters),
            "gradients": sum(p.grad is not None for p in parameters),
            "inference_mode": torch.is_inference_mode_enabled(),
            "grad_enabled": torch.is_grad_enabled(),
            "in_training": getattr(comfy.model_management, "in_training", False),
            "streams": getattr(comfy.model_management, "NUM_STREAMS", 0),
        }
        return {"ui": {"report": [state]}}
