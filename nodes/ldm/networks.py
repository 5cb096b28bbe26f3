"""Latent diffusion networks as the host's MODEL and VAE, built from their weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.sd
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.ldm.models.autoencoder import EmptyRegularizer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn
from torch.nn import functional as F

from ...vipaint_ops.errors import InputError
from ..host.codebook import Codebook
from ..host.gradients import is_dynamic
from .layout import Checkpoint, first_stage_config, is_quantised, unet_config


class AttentionBlock(nn.Module):
    """Self-attention over the positions of a feature map. The channels of q, k and v are interleaved by head."""

    def __init__(self, channels: int, heads: int, *, operations: Any, **options: Any):
        super().__init__()
        self.heads = heads
        self.norm = operations.GroupNorm(32, channels, **options)
        self.qkv = operations.Conv1d(channels, 3 * channels, 1, **options)
        self.proj_out = operations.Conv1d(channels, channels, 1, **options)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x.flatten(2))).unflatten(1, (self.heads, 3, -1)).transpose(-1, -2)
        # PyTorch's own, not the host's choice: some of those have no gradient, and nothing here could override them.
        attended = F.scaled_dot_product_attention(*qkv.unbind(2))
        return x + self.proj_out(attended.transpose(-1, -2).flatten(1, 2)).view_as(x)


class LDMUNet(UNetModel):
    """The host's UNet, extended by plain self-attention and a middle block without attention.

    Args:
        attention: names of the blocks with self-attention between ResBlock and resampling.
        config: the host's arguments.
    """

    def __init__(self, *, attention: list[str], **config: Any):
        super().__init__(**config)
        options = {name: config[name] for name in ("dtype", "device", "operations")}
        if config["transformer_depth_middle"] == 0:
            # What the host puts there has weights even at depth 0.
            self.middle_block[1] = nn.Identity()
        for name in attention:
            block = self.get_submodule(name)
            channels = block[0].out_channels
            heads = self.num_heads if self.num_head_channels == -1 else channels // self.num_head_channels
            layer = AttentionBlock(channels, heads, **options)
            if name == "middle_block":
                block[1] = layer
            else:
                block.insert(1, layer)


class ContinuousV(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
    """v-prediction at continuous times: the inverse of the host's ``sigma`` without rounding."""

    def timestep(self, sigma: Tensor) -> Tensor:
        value = sigma.log().flatten().to(self.log_sigmas)
        above = torch.searchsorted(self.log_sigmas, value).clamp(1, len(self.log_sigmas) - 1)
        low, high = self.log_sigmas[above - 1], self.log_sigmas[above]
        time = above - 1 + (value - low) / (high - low)
        return time.clamp(0, len(self.log_sigmas) - 1).view(sigma.shape).to(sigma.device)


class LDMLatent(comfy.latent_formats.LatentFormat):
    """Latents of a first stage. Its settings are set on the instance."""


class LDMConfig(comfy.supported_models_base.BASE):
    """Model configuration of the host."""

    unet_extra_config = {}  # noqa: RUF012
    latent_format = LDMLatent


def build_model(checkpoint: Checkpoint, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The UNet as the host's MODEL, in the precision that the host chooses for the device.

    Raises:
        InputError: the weights do not fit the UNet that their names describe.
    """
    management, weights = comfy.model_management, checkpoint.unet
    device, offload_device = management.get_torch_device(), management.unet_offload_device()
    config = _model_config(checkpoint)
    supported = config.supported_inference_dtypes
    dtype = management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        supported_dtypes=supported,
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, supported))
    types = comfy.model_base.ModelType
    kind = types.V_PREDICTION if checkpoint.v_prediction else types.EPS
    model = comfy.model_base.BaseModel(config, kind, device=offload_device, unet_model=LDMUNet)
    if checkpoint.v_prediction:
        model.model_sampling = ContinuousV(config)
    patcher_class = comfy.model_patcher.ModelPatcher
    if not disable_dynamic:
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", patcher_class)
    patcher = patcher_class(model, load_device=device, offload_device=offload_device)
    with _fitting("UNet"):
        model.diffusion_model.load_state_dict(weights, assign=is_dynamic(patcher))
    model.diffusion_model.eval().requires_grad_(False)
    _set_groups(model.diffusion_model, checkpoint.groups[0])
    return patcher


def build_vae(checkpoint: Checkpoint) -> comfy.sd.VAE:
    """The first stage as the host's VAE. For VQ, encoding ends before the codebook and decoding starts with it.

    Raises:
        InputError: the weights do not fit the autoencoder that their names describe.
    """
    parts = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
    weights = {k: v for k, v in checkpoint.first_stage.items() if k.startswith(parts)}
    config = first_stage_config(weights)
    latent_channels = weights["post_quant_conv.weight"].shape[1]
    with _fitting("first stage"):
        vae = comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": config, "embed_dim": latent_channels}})
    network = vae.first_stage_model
    if differing := network.state_dict().keys() ^ weights.keys():
        raise InputError(f"its first stage has tensors missing or in excess, such as {min(differing)}")
    network.requires_grad_(False)
    _set_groups(network, checkpoint.groups[1])
    if is_quantised(checkpoint.first_stage):
        network.regularization = EmptyRegularizer()
        codebook = Codebook(checkpoint.first_stage["quantize.embedding.weight"])
        network.post_quant_conv = nn.Sequential(codebook, network.post_quant_conv)
    factor, usual_factor, usual_memory = _factor(config), vae.upscale_ratio, vae.memory_used_decode
    vae.memory_used_decode = lambda shape, dtype: usual_memory(shape, dtype) * (factor / usual_factor) ** 2
    vae.upscale_ratio = vae.downscale_ratio = factor
    vae.latent_channels = latent_channels
    return vae


def _factor(config: dict[str, Any]) -> int:
    return 2 ** (len(config["ch_mult"]) - 1)


def _model_config(checkpoint: Checkpoint) -> LDMConfig:
    config = LDMConfig(unet_config(checkpoint.unet))
    start, end = checkpoint.betas
    config.sampling_settings = {"linear_start": start, "linear_end": end, "timesteps": checkpoint.steps}
    config.picture_size = checkpoint.picture_size
    latent = config.latent_format
    latent.scale_factor = checkpoint.scale_factor
    latent.latent_channels = config.unet_config["in_channels"]
    latent.spacial_downscale_ratio = _factor(first_stage_config(checkpoint.first_stage))
    if checkpoint.preview is not None:
        latent.latent_rgb_factors, latent.latent_rgb_factors_bias = checkpoint.preview
    return config


def _set_groups(network: nn.Module, groups: int) -> None:
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            if module.num_channels % groups:
                raise InputError(
                    f"it has {module.num_channels} channels, which {groups} normalisation groups do not divide"
                )
            module.num_groups = groups


@contextmanager
def _fitting(network: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "Error(s) in loading state_dict" not in str(error):
            raise
        reason = " ".join(str(error).partition(":")[2].split())[:300].rstrip(".")
        raise InputError(f"its {network} does not fit the layout that its names describe: {reason}") from error
