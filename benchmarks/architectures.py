"""Full-size latent diffusion models by their public configurations, and the cost of one row of each network.

A row is the latent or the picture of one sample. The networks are on the meta device: no weights exist, no arithmetic
is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers.models.attention import JointTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock, FluxTransformerBlock
from torch import Tensor, nn

from vipaint_ops.evaluation.cost import Row, recompute, trace

diffusers.logging.set_verbosity_error()  # else a line of warning for every network
DTYPE = torch.bfloat16
Shapes = dict[str, Any]
"""Shapes of conditions by name; a dictionary inside is one of conditions."""


def _decode(autoencoder: Any, latent: Tensor) -> Tensor:
    return autoencoder.decode(latent).sample


def _encode(autoencoder: Any, picture: Tensor) -> Tensor:
    return autoencoder.encode(picture).latent_dist.mean


def _denoise(denoiser: Any, latent: Tensor, **conditions: Any) -> Tensor:
    return denoiser(latent, **conditions).sample


@dataclass(frozen=True)
class Network:
    """A network of one input with its conditions.

    Attributes:
        model: class of diffusers.
        config: its configuration.
        shape: of the input, one row.
        blocks: classes of the modules that are recomputed in the backward pass with checkpointing.
        call: from the module, the input and the conditions to the output.
        conditions: their shapes, with the text lengths of ComfyUI.
    """

    name: str
    model: Callable[..., nn.Module]
    config: dict[str, Any]
    shape: tuple[int, ...]
    blocks: tuple[type[nn.Module], ...]
    call: Callable[..., Tensor] = _denoise
    conditions: Shapes | None = None

    def build(self, device: str, dtype: torch.dtype = DTYPE) -> nn.Module:
        """The frozen module; on another device than ``meta`` with random weights."""
        with torch.device("meta"):
            module = self.model(**self.config).to(dtype).requires_grad_(False).eval()
        if device == "meta":
            return module
        module.to_empty(device=device)
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.normal_(0, 0.02)
        return module

    def function(self, module: nn.Module, device: str, dtype: torch.dtype = DTYPE) -> Callable[[Tensor], Tensor]:
        """The network as a function of its input, with fixed conditions."""
        conditions = _tensors(self.conditions or {}, device, dtype)
        return lambda x: self.call(module, x, **conditions)


def _tensors(shapes: Shapes, device: str, dtype: torch.dtype) -> dict[str, Any]:
    return {
        name: _tensors(shape, device, dtype)
        if isinstance(shape, dict)
        else torch.ones(shape, dtype=dtype, device=device)
        for name, shape in shapes.items()
    }


@dataclass(frozen=True)
class Architecture:
    """A denoiser and an autoencoder.

    Attributes:
        guided: whether a prediction takes two rows of the denoiser (classifier-free guidance).
    """

    name: str
    denoiser: Network
    decoder: Network
    encoder: Network
    guided: bool = True

    def networks(self) -> dict[str, Network]:
        """By their names in :class:`~vipaint_ops.diffusion.prior.Evaluations`."""
        return {"denoiser": self.denoiser, "decoder": self.decoder, "encoder": self.encoder}


def autoencoder(side: int, channels: int) -> tuple[Network, Network]:
    """Decoder and encoder of the KL autoencoder of Stable Diffusion, for latents of ``side`` cells."""
    config = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": channels,
        "use_quant_conv": channels == 4,
        "use_post_quant_conv": channels == 4,
    }
    blocks = (ResnetBlock2D, Attention)
    return (
        Network(
            f"KL decoder, {channels} channels",
            diffusers.AutoencoderKL,
            config,
            (1, channels, side, side),
            blocks,
            _decode,
        ),
        Network(
            f"KL encoder, {channels} channels",
            diffusers.AutoencoderKL,
            config,
            (1, 3, 8 * side, 8 * side),
            blocks,
            _encode,
        ),
    )


SD15_UNET = {"cross_attention_dim": 768}
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD35_MEDIUM = {
    "sample_size": 128,
    "in_channels": 16,
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "qk_norm": "rms_norm",
    "dual_attention_layers": tuple(range(13)),
}
FLUX_DEV = {
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
}
UNET_BLOCKS = (ResnetBlock2D, Transformer2DModel)
ARCHITECTURES = [
    Architecture(
        "SD1.5 512",
        Network(
            "SD1.5 UNet",
            diffusers.UNet2DConditionModel,
            SD15_UNET,
            (1, 4, 64, 64),
            UNET_BLOCKS,
            conditions={"timestep": (1,), "encoder_hidden_states": (1, 77, 768)},
        ),
        *autoencoder(64, 4),
    ),
    Architecture(
        "SDXL 1024",
        Network(
            "SDXL UNet",
            diffusers.UNet2DConditionModel,
            SDXL_UNET,
            (1, 4, 128, 128),
            UNET_BLOCKS,
            conditions={
                "timestep": (1,),
                "encoder_hidden_states": (1, 77, 2048),
                "added_cond_kwargs": {"text_embeds": (1, 1280), "time_ids": (1, 6)},
            },
        ),
        *autoencoder(128, 4),
    ),
    Architecture(
        "SD3.5-medium 1024",
        Network(
            "SD3.5-medium transformer",
            diffusers.SD3Transformer2DModel,
            SD35_MEDIUM,
            (1, 16, 128, 128),
            (JointTransformerBlock,),
            conditions={
                "timestep": (1,),
                "encoder_hidden_states": (1, 154, 4096),
                "pooled_projections": (1, 2048),
            },
        ),
        *autoencoder(128, 16),
    ),
    Architecture(
        "Flux-dev 1024",
        Network(
            "Flux-dev transformer",
            diffusers.FluxTransformer2DModel,
            FLUX_DEV,
            (1, 64 * 64, 64),
            (FluxTransformerBlock, FluxSingleTransformerBlock),
            conditions={
                "timestep": (1,),
                "guidance": (1,),
                "encoder_hidden_states": (1, 512, 4096),
                "pooled_projections": (1, 768),
                "img_ids": (64 * 64, 3),
                "txt_ids": (512, 3),
            },
        ),
        *autoencoder(128, 16),
        guided=False,
    ),
]


def row(network: Network, checkpointed: bool, dtype: torch.dtype = DTYPE) -> Row:
    """The cost of one row of ``network``, with or without checkpointing of its blocks."""
    module = network.build("meta", dtype)
    if checkpointed:
        recompute(module, network.blocks)
    x = torch.empty(network.shape, dtype=dtype, device="meta")
    return trace(network.function(module, "meta", dtype), x, [*module.parameters(), *module.buffers()])


def weight_bytes(networks: Iterable[Network]) -> int:
    """Bytes of the weights of ``networks``."""
    return sum(p.nbytes for network in networks for p in network.build("meta").parameters())
