"""Networks that ComfyUI's loaders do not recognise when small, built without a file; random weights from a seed."""

from __future__ import annotations

import inspect
import math

import comfy.ldm.chroma.model
import comfy.ldm.flux.model
import comfy.ldm.lumina.model
import comfy.ldm.models.autoencoder
import comfy.ldm.modules.diffusionmodules.openaimodel
import comfy.ldm.qwen_image.model
import comfy.ldm.wan.model
import comfy.ldm.wan.vae
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import torch

from .basic import CATEGORY, generator, integer

_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": [1, 1],
    "transformer_depth": [0, 1],
    "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 64,
    "num_heads": 4,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "image_size": 32,
    "use_checkpoint": False,
    "legacy": False,
}
_FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "hidden_size": 64,
    "num_heads": 2,
    "axes_dim": [8, 12, 12],
    "context_in_dim": 64,
    "vec_in_dim": 32,
    "mlp_ratio": 4.0,
    "depth": 1,
    "depth_single_blocks": 1,
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
_CHROMA = {
    "image_model": "chroma",
    "in_channels": 64,
    "out_channels": 64,
    "patch_size": 2,
    "hidden_size": 64,
    "num_heads": 2,
    "axes_dim": [8, 12, 12],
    "context_in_dim": 64,
    "mlp_ratio": 4.0,
    "depth": 1,
    "depth_single_blocks": 1,
    "theta": 10000,
    "qkv_bias": True,
    "in_dim": 64,
    "out_dim": 64,
    "hidden_dim": 64,
    "n_layers": 1,
    "txt_ids_dims": [],
    "vec_in_dim": None,
}
_QWEN = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 1,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 64,
    "axes_dims_rope": (8, 12, 12),
}
_Z_IMAGE = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 256,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 8,
    "n_kv_heads": 8,
    "cap_feat_dim": 64,
    "axes_dims": [8, 12, 12],
    "axes_lens": [64, 64, 64],
    "qk_norm": True,
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8 / 3,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}
_WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": 64,
    "in_dim": 16,
    "out_dim": 16,
    "num_heads": 2,
    "ffn_dim": 128,
    "num_layers": 1,
    "text_dim": 64,
    "patch_size": (1, 2, 2),
    "qk_norm": True,
    "cross_attn_norm": True,
}

_FAMILIES = {
    "unet": (comfy.supported_models.SD15, comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel, _UNET),
    "flux": (comfy.supported_models.Flux, comfy.ldm.flux.model.FluxParams, _FLUX),
    "chroma": (comfy.supported_models.Chroma, comfy.ldm.chroma.model.ChromaParams, _CHROMA),
    "qwen": (comfy.supported_models.QwenImage, comfy.ldm.qwen_image.model.QwenImageTransformer2DModel, _QWEN),
    "z-image": (comfy.supported_models.Lumina2, comfy.ldm.lumina.model.NextDiT, _Z_IMAGE),
    "wan": (comfy.supported_models.WAN21_T2V, comfy.ldm.wan.model.WanModel, _WAN),
}
_AUTOENCODER = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 64,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}
_VIDEO_AUTOENCODER = {
    "dim": 16,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}


class TestTinyModel:
    """MODEL of a family, a few million parameters at most; its text is 64 wide, 32 pooled."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "build", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"family": (list(_FAMILIES),), "seed": integer(0)}}

    def build(self, family, seed):
        supported, parameters_of, settings = _FAMILIES[family]
        config = supported(_accepted(parameters_of, settings))
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model({}, "", device=torch.device("cpu"))
        _fill(model.diffusion_model, seed)
        load_device = comfy.model_management.get_torch_device()
        offload_device = comfy.model_management.unet_offload_device()
        return (comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device),)


class TestTinyVAE:
    """VAE like Stable Diffusion's, a quarter as wide: 4 channels, eight pixels to a latent."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "build", ("VAE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seed": integer(0)}, "optional": {"nan_in": (("float16", "float32"),)}}

    def build(self, seed, nan_in=None):
        settings = {"ddconfig": _AUTOENCODER, "embed_dim": _AUTOENCODER["z_channels"]}
        network = comfy.ldm.models.autoencoder.AutoencoderKL(**settings)
        _fill(network, seed)
        dtype = nan_in and getattr(torch, nan_in)
        if dtype:
            network.decoder.conv_out.weight.data.fill_(torch.nan)
        return (comfy.sd.VAE(sd=network.state_dict(), config={"params": settings}, dtype=dtype),)


class TestTinyVideoVAE:
    """VAE of Wan 2.1 and Qwen-Image, a sixth as wide in newer ComfyUI: 16 channels, latents with frames."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "build", ("VAE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seed": integer(0)}}

    def build(self, seed):
        network = comfy.ldm.wan.vae.WanVAE(**_VIDEO_AUTOENCODER)
        _fill(network, seed)
        return (comfy.sd.VAE(sd=network.state_dict()),)


def _accepted(parameters_of, settings):
    """What this ComfyUI's network knows of ``settings``; older ones know less."""
    known = {"image_model", *inspect.signature(parameters_of).parameters}
    return {name: value for name, value in settings.items() if name in known}


def _fill(network, seed):
    """Matrices normal with spread 0.7 / sqrt(fan in), scales of normalisations 1, biases small."""
    numbers = generator(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                scale = 0.7 / math.sqrt(math.prod(parameter.shape[1:]))
                parameter.copy_(torch.randn(parameter.shape, generator=numbers) * scale)
            elif name.endswith(".bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=numbers) * 0.05)
            else:
                parameter.fill_(1.0)
