"""Contents of a latent diffusion checkpoint, in CompVis's names, and network configurations from tensor shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from ...vipaint_ops.errors import InputError
from ...vipaint_ops.priors.embedded_file import check_tensors
from ...vipaint_ops.settings import Range, check_number

Weights = Mapping[str, Tensor]


@dataclass
class Checkpoint:
    """Weights of both networks, without prefixes, and settings that cannot be read from their shapes.

    Attributes:
        classes: embedding of the classes, ``[classes + 1, width]``; the last row is for no class.
        betas: first and last beta of the scaled-linear schedule.
        scale_factor: from the first stage's latents to the UNet's.
        groups: of the normalisations of UNet and first stage.
        picture_size: side of the pictures that it was trained on.
        digest: of a file of an embedded prior, which names its model in the library too.
        preview: factors ``[channels, 3]`` and offsets ``[3]`` from latents to images in [-1, 1], or None.
    """

    unet: Weights
    first_stage: Weights
    betas: tuple[float, float]
    steps: int = 1000
    scale_factor: float = 1.0
    classes: Tensor = field(default_factory=lambda: torch.zeros(1, 1))
    v_prediction: bool = False
    groups: tuple[int, int] = (32, 32)
    picture_size: int = 256
    digest: str | None = None
    preview: tuple[list[list[float]], list[float]] | None = None


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """Refuse weights and settings with which the host would make NaN pictures without an error.

    Raises:
        InputError: weights that are not finite, betas outside (0, 1) or falling, or a scale that is not positive.
    """
    weights = {**checkpoint.unet, **checkpoint.first_stage, "cond_stage_model": checkpoint.classes}
    check_tensors({name: value for name, value in weights.items() if value.is_floating_point()})
    start, end = checkpoint.betas
    if not 0 < start <= end < 1:
        raise InputError(f"its betas go from {start:g} to {end:g}; they must rise between 0 and 1")
    check_number("its number of steps", checkpoint.steps, Range(2, 4096, whole=True))
    check_number("its latent scale", checkpoint.scale_factor, Range(0, open=True))


class Multiple(Fraction):
    """Width of a level over that of the first. It can be a fraction: the host multiplies it to an integer."""

    def __mul__(self, width: int) -> int:
        return int(super().__mul__(width))

    __rmul__ = __mul__


def count(weights: Weights, prefix: str) -> int:
    """Number of numbered modules under a prefix."""
    return len({key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)})


def under(tensors: Weights, prefix: str) -> dict[str, Tensor]:
    """Tensors whose names start with a prefix, without the prefix."""
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def is_quantised(first_stage: Weights) -> bool:
    """Whether a first stage uses a codebook (VQ) instead of sampling (KL)."""
    return "quantize.embedding.weight" in first_stage


def from_compvis(tensors: Weights) -> Checkpoint:
    """Read a checkpoint of CompVis's latent-diffusion repository. Averaged weights (EMA) are used if present.

    Raises:
        InputError: not such a checkpoint, or unsupported conditioning.
        KeyError: a network's tensor is missing.
    """
    unet, first_stage = under(tensors, "model.diffusion_model."), under(tensors, "first_stage_model.")
    if "output_blocks.0.0.out_layers.3.weight" not in unet or "encoder.down.0.block.0.conv1.weight" not in first_stage:
        raise InputError("it lacks the tensors model.diffusion_model.* and first_stage_model.*")
    config, quantised = unet_config(unet), is_quantised(first_stage)
    classes = tensors.get("cond_stage_model.embedding.weight")
    if config["context_dim"] is not None and classes is None:
        raise InputError("it is conditioned on something other than a class (no cond_stage_model.embedding.weight)")
    if config["in_channels"] != config["out_channels"]:
        raise InputError(f"its UNet takes {config['in_channels']} channels to predict {config['out_channels']}")
    if classes is not None and quantised and first_stage_config(first_stage)["attn_resolutions"]:
        # Other attention heads than cin256-v2's, and no class that stands for none.
        raise InputError("it is cin256, the first class-conditional ImageNet model; use cin256-v2")
    if not quantised and "scale_factor" not in tensors:
        raise InputError("it lacks the latent scale (scale_factor)")
    # Where the schedule was left out in converting: every published model but churches ends at 0.0195.
    betas = tensors.get("betas")
    ends = (0.0015, 0.0155 if config["resblock_updown"] else 0.0195)
    checkpoint = Checkpoint(
        unet=_averaged(tensors, unet),
        first_stage=first_stage,
        betas=ends if betas is None else (betas[0].item(), betas[-1].item()),
        steps=1000 if betas is None else len(betas),
        scale_factor=float(tensors.get("scale_factor", 1.0)),
    )
    return checkpoint if classes is None else replace(checkpoint, classes=classes.float())


def _averaged(tensors: Weights, unet: Weights) -> Weights:
    names = {key: "model_ema." + f"diffusion_model.{key}".replace(".", "") for key in unet}
    if not all(name in tensors for name in names.values()):
        return unet
    return {key: tensors[name] for key, name in names.items()}


def unet_config(unet: Weights) -> dict[str, Any]:
    """Arguments of :class:`~.ldm_networks.LDMUNet` for these weights.

    Levels, widths, attention and context are read from names and shapes. The number of attention heads follows
    CompVis's published configurations, models/ldm/*/config.yaml and configs/latent-diffusion/cin256-v2.yaml: one head
    in transformers, 8 if blocks resample (lsun_churches256), heads of 32 channels otherwise (celeba256, ffhq256,
    lsun_beds256).

    Raises:
        KeyError: a tensor is missing.
    """
    width, in_channels = unet["input_blocks.0.0.weight"].shape[:2]
    outputs = [f"output_blocks.{i}" for i in range(count(unet, "output_blocks."))]
    levels: list[list[str]] = [[]]  # the blocks of each level, finest level first
    for block in outputs:
        levels[0].append(block)
        if _resamples(unet, block):
            levels.insert(0, [])
    blocks = [len(level) - 1 for level in levels]
    inputs = [f"input_blocks.{1 + sum(blocks[:i]) + i + j}" for i in range(len(blocks)) for j in range(blocks[i])]
    places = [*inputs, "middle_block", *outputs]
    depths = {block: count(unet, f"{block}.1.transformer_blocks.") for block in places}
    transformers = [block for block in places if depths[block]]
    in_blocks = any(f"{block}.{i}.in_layers.0.weight" in unet for block in outputs for i in (1, 2))
    heads, head_channels = (1, -1) if transformers else (8, -1) if in_blocks else (-1, 32)
    return {
        "image_size": 32,
        "in_channels": in_channels,
        "out_channels": unet["out.2.weight"].shape[0],
        "model_channels": width,
        "num_res_blocks": blocks,
        "channel_mult": [Multiple(_width(unet, level[0]), width) for level in levels],
        "num_heads": heads,
        "num_head_channels": head_channels,
        "use_scale_shift_norm": unet["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * _width(unet, inputs[0]),
        "resblock_updown": in_blocks,
        "use_spatial_transformer": True,
        "transformer_depth": [depths[block] for block in inputs],
        "transformer_depth_middle": depths["middle_block"],
        "transformer_depth_output": [depths[block] for block in reversed(outputs)],
        "context_dim": _context(unet, transformers[0]) if transformers else None,
        "attention": [block for block in places if f"{block}.1.qkv.weight" in unet],
    }


def _resamples(unet: Weights, block: str) -> bool:
    return any(f"{block}.{i}.{name}.weight" in unet for i in (1, 2) for name in ("conv", "in_layers.0"))


def _width(unet: Weights, block: str) -> int:
    return unet[f"{block}.0.out_layers.3.weight"].shape[0]


def _context(unet: Weights, block: str) -> int:
    return unet[f"{block}.1.transformer_blocks.0.attn2.to_k.weight"].shape[1]


def first_stage_config(first_stage: Weights) -> dict[str, Any]:
    """The host's ``ddconfig`` for an autoencoder with these weights.

    Raises:
        KeyError: a tensor is missing.
    """
    levels = count(first_stage, "encoder.down.")
    width, in_channels = first_stage["encoder.conv_in.weight"].shape[:2]
    latent = first_stage["decoder.conv_in.weight"].shape[1]
    resolution = 256  # only says at which levels there is attention
    return {
        "double_z": first_stage["encoder.conv_out.weight"].shape[0] == 2 * latent,
        "z_channels": latent,
        "resolution": resolution,
        "in_channels": in_channels,
        "out_ch": first_stage["decoder.conv_out.weight"].shape[0],
        "ch": width,
        "ch_mult": [
            Multiple(first_stage[f"encoder.down.{i}.block.0.conv1.weight"].shape[0], width) for i in range(levels)
        ],
        "num_res_blocks": count(first_stage, "encoder.down.0.block."),
        "attn_resolutions": [
            resolution >> i for i in range(levels) if f"encoder.down.{i}.attn.0.norm.weight" in first_stage
        ],
    }
