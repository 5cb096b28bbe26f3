"""Checkpoints with random weights, as small as ComfyUI's own loaders recognise them.

Flux is small for newer ComfyUI only (0.3.64 takes its width for granted), Qwen-Image and Z-Image for none;
the test pack builds those without a file.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

UNET, VAE = "model.diffusion_model.", "first_stage_model."


class Weights:
    """A state dict in the making; every tensor is drawn from one seeded generator."""

    def __init__(self, seed: int = 0):
        self.tensors: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(seed)

    def random(self, name: str, *shape: int, scale: float | None = None) -> None:
        """Normal numbers whose spread is that of a weight, 0.7 / sqrt(fan in), unless given."""
        scale = 0.7 / math.sqrt(math.prod(shape[1:])) if scale is None else scale
        self.tensors[name] = torch.randn(shape, generator=self._generator) * scale

    def linear(self, name: str, outputs: int, inputs: int, *kernel: int, bias: bool = True) -> None:
        """A linear layer, or with ``kernel`` a convolution."""
        self.random(f"{name}.weight", outputs, inputs, *kernel)
        if bias:
            self.random(f"{name}.bias", outputs, scale=0.05)

    def norm(self, name: str, width: int) -> None:
        """A normalisation that changes nothing else."""
        self.tensors |= {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}

    def ones(self, name: str, width: int) -> None:
        """The scale of an RMS normalisation."""
        self.tensors[name] = torch.ones(width)


def sd15(weights: Weights, prefix: str = UNET, in_channels: int = 4, middle: bool = False) -> None:
    """One level of SD1.5's UNet: 13.6 M parameters, as detection asks for its width; ``middle`` adds 2.3 M below it."""
    width = 320
    _sd15_encoder(weights, prefix, in_channels)
    if middle:
        _res_block(weights, f"{prefix}middle_block.0", width, width)
    for block in range(2):
        _res_block(weights, f"{prefix}output_blocks.{block}.0", 2 * width, width)
    weights.norm(f"{prefix}out.0", width)
    weights.linear(f"{prefix}out.2", 4, width, 3, 3)


def sd3(weights: Weights, prefix: str = UNET, context: int = 64, pooled: int = 32) -> None:
    """SD3's transformer with one block: 0.2 M parameters; latents up to 64x64."""
    width = 64
    weights.random(f"{prefix}pos_embed", 1, 32 * 32, width, scale=0.1)
    weights.linear(f"{prefix}x_embedder.proj", width, 16, 2, 2)
    weights.linear(f"{prefix}context_embedder", width, context)
    for embedder, inputs in (("t_embedder", 256), ("y_embedder", pooled)):
        weights.linear(f"{prefix}{embedder}.mlp.0", width, inputs)
        weights.linear(f"{prefix}{embedder}.mlp.2", width, width)
    for stream, modulations in (("x_block", 6), ("context_block", 2)):
        block = f"{prefix}joint_blocks.0.{stream}"
        weights.linear(f"{block}.attn.qkv", 3 * width, width)
        weights.ones(f"{block}.attn.ln_q.weight", 64)
        weights.ones(f"{block}.attn.ln_k.weight", 64)
        weights.linear(f"{block}.adaLN_modulation.1", modulations * width, width)
    block = f"{prefix}joint_blocks.0.x_block"
    weights.linear(f"{block}.attn.proj", width, width)
    weights.linear(f"{block}.mlp.fc1", 4 * width, width)
    weights.linear(f"{block}.mlp.fc2", width, 4 * width)
    weights.linear(f"{prefix}final_layer.linear", 64, width)
    weights.linear(f"{prefix}final_layer.adaLN_modulation.1", 2 * width, width)


def flux(weights: Weights, prefix: str = "", context: int = 64, pooled: int = 32) -> None:
    """Flux with one double and one single block and one head: 1.4 M parameters."""
    width = 128
    weights.linear(f"{prefix}img_in", width, 64)
    weights.linear(f"{prefix}txt_in", width, context)
    for embedder, inputs in (("time_in", 256), ("guidance_in", 256), ("vector_in", pooled)):
        weights.linear(f"{prefix}{embedder}.in_layer", width, inputs)
        weights.linear(f"{prefix}{embedder}.out_layer", width, width)
    for stream in ("img", "txt"):
        block = f"{prefix}double_blocks.0.{stream}"
        weights.linear(f"{block}_mod.lin", 6 * width, width)
        weights.linear(f"{block}_attn.qkv", 3 * width, width)
        weights.linear(f"{block}_attn.proj", width, width)
        weights.linear(f"{block}_mlp.0", 4 * width, width)
        weights.linear(f"{block}_mlp.2", width, 4 * width)
        _query_key_scales(weights, f"{block}_attn.norm", width)
    block = f"{prefix}single_blocks.0"
    weights.linear(f"{block}.modulation.lin", 3 * width, width)
    weights.linear(f"{block}.linear1", 7 * width, width)
    weights.linear(f"{block}.linear2", width, 5 * width)
    _query_key_scales(weights, f"{block}.norm", width)
    weights.linear(f"{prefix}final_layer.linear", 64, width)
    weights.linear(f"{prefix}final_layer.adaLN_modulation.1", 2 * width, width)


def wan(weights: Weights, prefix: str = "") -> None:
    """Wan 2.1 text to video with one block and one head: 1.1 M parameters, half of them for text 4096 wide."""
    width, hidden = 128, 256
    weights.linear(f"{prefix}patch_embedding", width, 16, 1, 2, 2)
    for embedder, inputs in (("text_embedding", 4096), ("time_embedding", 256)):
        weights.linear(f"{prefix}{embedder}.0", width, inputs)
        weights.linear(f"{prefix}{embedder}.2", width, width)
    weights.linear(f"{prefix}time_projection.1", 6 * width, width)
    block = f"{prefix}blocks.0"
    weights.random(f"{block}.modulation", 1, 6, width, scale=0.1)
    weights.norm(f"{block}.norm3", width)
    for attention in ("self_attn", "cross_attn"):
        for layer in "qkvo":
            weights.linear(f"{block}.{attention}.{layer}", width, width)
        weights.ones(f"{block}.{attention}.norm_q.weight", width)
        weights.ones(f"{block}.{attention}.norm_k.weight", width)
    weights.linear(f"{block}.ffn.0", hidden, width)
    weights.linear(f"{block}.ffn.2", width, hidden)
    weights.linear(f"{prefix}head.head", 64, width)
    weights.random(f"{prefix}head.modulation", 1, 2, width, scale=0.1)


def taesd(weights: Weights, prefix: str = VAE, channels: int = 4) -> None:
    """The tiny autoencoder for Stable Diffusion, eight pixels to a latent: 2.4 M parameters."""
    width = 64
    for network, (first, last) in {"encoder": (3, channels), "decoder": (channels, 3)}.items():
        encoder = network == "encoder"
        name = f"{prefix}taesd_{network}"
        # Positions in the sequence of layers; the decoder's others have no weights (clamp, ReLU, upsampling).
        blocks, resamplers = (
            ([1, 3, 4, 5, 7, 8, 9, 11, 12, 13], [2, 6, 10])
            if encoder
            else ([3, 4, 5, 8, 9, 10, 13, 14, 15, 18], [7, 12, 17])
        )
        weights.linear(f"{name}.{0 if encoder else 1}", width, first, 3, 3)
        for block in blocks:
            for layer in (0, 2, 4):
                weights.linear(f"{name}.{block}.conv.{layer}", width, width, 3, 3)
        for resampler in resamplers:
            weights.linear(f"{name}.{resampler}", width, width, 3, 3, bias=False)
        weights.linear(f"{name}.{14 if encoder else 19}", last, width, 3, 3)
    weights.tensors |= {f"{prefix}vae_scale": torch.tensor(1.0), f"{prefix}vae_shift": torch.tensor(0.0)}


def controlnet(weights: Weights) -> None:
    """A ControlNet for :func:`sd15`: 9 M parameters."""
    width, hints = 320, [3, 16, 16, 32, 32, 96, 96, 256, 320]
    _sd15_encoder(weights, "", 4)
    _res_block(weights, "middle_block.0", width, width)
    for i, (inputs, outputs) in enumerate(pairwise(hints)):
        weights.linear(f"input_hint_block.{2 * i}", outputs, inputs, 3, 3)
    for convolution in ("zero_convs.0.0", "zero_convs.1.0", "middle_block_out.0"):
        weights.linear(convolution, width, width, 1, 1)


def lora(weights: Weights, rank: int = 4) -> None:
    """A LoRA of one attention's queries in :func:`sd15`, strong enough to be seen."""
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    weights.random(f"{name}.lora_up.weight", 320, rank, scale=0.3)
    weights.random(f"{name}.lora_down.weight", rank, 320, scale=0.3)


def write_all(models: Path) -> None:
    """Write every file into the folders of ``models``: checkpoints, diffusion_models, vae and loras.

    ``checkpoints/tiny_{sd15,sd15_middle,sd15_inpaint,sd3}`` hold a network and a TAESD,
    ``diffusion_models/tiny_{flux,wan}`` a transformer, ``vae/tiny_taesd_{4,16}`` a TAESD,
    ``loras/tiny_sd15{,_other}`` two LoRAs of the same keys, ``controlnet/tiny_sd15`` a ControlNet; all are
    .safetensors.
    """
    _write(models / "checkpoints/tiny_sd15.safetensors", (sd15, {}), (taesd, {}))
    _write(models / "checkpoints/tiny_sd15_middle.safetensors", (sd15, {"middle": True}), (taesd, {}))
    _write(models / "checkpoints/tiny_sd15_inpaint.safetensors", (sd15, {"in_channels": 9}), (taesd, {}))
    _write(models / "checkpoints/tiny_sd3.safetensors", (sd3, {}), (taesd, {"channels": 16}))
    _write(models / "diffusion_models/tiny_flux.safetensors", (flux, {}))
    _write(models / "diffusion_models/tiny_wan.safetensors", (wan, {}))
    for channels in (4, 16):
        _write(models / f"vae/tiny_taesd_{channels}.safetensors", (taesd, {"prefix": "", "channels": channels}))
    _write(models / "loras/tiny_sd15.safetensors", (lora, {}))
    _write(models / "loras/tiny_sd15_other.safetensors", (lora, {}), seed=1)
    _write(models / "controlnet/tiny_sd15.safetensors", (controlnet, {}))


def _write(path: Path, *parts, seed: int = 0) -> None:
    weights = Weights(seed)
    for build, settings in parts:
        build(weights, **settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights.tensors, path)


def _sd15_encoder(weights: Weights, prefix: str, in_channels: int) -> None:
    width, hidden = 320, 1280
    weights.linear(f"{prefix}time_embed.0", hidden, width)
    weights.linear(f"{prefix}time_embed.2", hidden, hidden)
    weights.linear(f"{prefix}input_blocks.0.0", width, in_channels, 3, 3)
    _res_block(weights, f"{prefix}input_blocks.1.0", width, width)
    _spatial_transformer(weights, f"{prefix}input_blocks.1.1", width, context=768)


def _res_block(weights: Weights, name: str, inputs: int, outputs: int) -> None:
    weights.norm(f"{name}.in_layers.0", inputs)
    weights.linear(f"{name}.in_layers.2", outputs, inputs, 3, 3)
    weights.linear(f"{name}.emb_layers.1", outputs, 1280)
    weights.norm(f"{name}.out_layers.0", outputs)
    weights.linear(f"{name}.out_layers.3", outputs, outputs, 3, 3)
    if inputs != outputs:
        weights.linear(f"{name}.skip_connection", outputs, inputs, 1, 1)


def _spatial_transformer(weights: Weights, name: str, width: int, context: int) -> None:
    weights.norm(f"{name}.norm", width)
    weights.linear(f"{name}.proj_in", width, width, 1, 1)
    weights.linear(f"{name}.proj_out", width, width, 1, 1)
    block = f"{name}.transformer_blocks.0"
    for attention, inputs in (("attn1", width), ("attn2", context)):
        weights.linear(f"{block}.{attention}.to_q", width, width, bias=False)
        weights.linear(f"{block}.{attention}.to_k", width, inputs, bias=False)
        weights.linear(f"{block}.{attention}.to_v", width, inputs, bias=False)
        weights.linear(f"{block}.{attention}.to_out.0", width, width)
    for i in (1, 2, 3):
        weights.norm(f"{block}.norm{i}", width)
    weights.linear(f"{block}.ff.net.0.proj", 8 * width, width)
    weights.linear(f"{block}.ff.net.2", width, 4 * width)


def _query_key_scales(weights: Weights, name: str, width: int) -> None:
    weights.ones(f"{name}.query_norm.scale", width)
    weights.ones(f"{name}.key_norm.scale", width)
