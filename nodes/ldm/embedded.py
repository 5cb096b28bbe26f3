"""The embedded prior with tensor names converted from diffusers to CompVis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...vipaint_ops.errors import InputError
from ...vipaint_ops.priors.embedded_file import EmbeddedFile
from .layout import Checkpoint, Weights, count, under

PREVIEW = (
    [[-0.655, -0.636, 0.124], [0.855, 0.649, -0.427], [-0.041, -0.032, 0.058], [-0.576, -0.446, -0.111]],
    [0.014, -0.049, 0.008],
)
"""Least-squares fit from the latents of 512 scenes to the scenes at a quarter of their size."""

# Settings that the two networks below carry out; any other would change what diffusers computes.
_SHARED = {"in_channels", "out_channels", "block_out_channels", "down_block_types", "up_block_types"}
_KNOWN = _SHARED | {"layers_per_block", "norm_num_groups", "sample_size"}
_SETTINGS = {"denoiser": _KNOWN | {"add_attention"}, "autoencoder": _KNOWN | {"latent_channels", "scaling_factor"}}
_BLOCKS = {"DownBlock2D", "UpBlock2D", "DownEncoderBlock2D", "UpDecoderBlock2D"}
_PREDICTIONS = ("epsilon", "v_prediction")


def from_embedded(file: EmbeddedFile) -> Checkpoint:
    """A file in the format of :mod:`vipaint_ops.priors.embedded_file`.

    Raises:
        InputError: a network or a prediction type that the host's UNet does not support.
        KeyError: a setting is missing.
    """
    for name, settings in file.networks.items():
        _check_supported(name, settings)
    denoiser, autoencoder = file.networks["denoiser"], file.networks["autoencoder"]
    if file.prediction_type not in _PREDICTIONS:
        raise InputError(f"it predicts {file.prediction_type!r}; supported are {', '.join(_PREDICTIONS)}")
    return Checkpoint(
        unet=_unet(under(file.tensors, "denoiser.")),
        first_stage=_first_stage(under(file.tensors, "autoencoder.")),
        betas=(file.schedule["start"], file.schedule["end"]),
        steps=file.schedule["steps"],
        scale_factor=autoencoder["scaling_factor"],
        v_prediction=file.prediction_type == "v_prediction",
        groups=(denoiser["norm_num_groups"], autoencoder["norm_num_groups"]),
        picture_size=autoencoder["sample_size"],
        digest=file.digest,
    )


def _check_supported(name: str, settings: Mapping[str, Any]) -> None:
    blocks = [*settings["down_block_types"], *settings["up_block_types"]]
    unknown = [str(one) for one in {*settings} - _SETTINGS[name] | {*blocks} - _BLOCKS]
    if unknown or settings.get("add_attention"):
        raise InputError(
            f"its {name} has settings that ComfyUI's networks do not support: {', '.join(unknown) or 'attention'}"
        )


def _unet(weights: Weights) -> dict[str, Tensor]:
    levels, layers = count(weights, "down_blocks."), count(weights, "down_blocks.0.resnets.")
    places = {
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "conv_in.": "input_blocks.0.0.",
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.resnets.1.": "middle_block.2.",
        "conv_norm_out.": "out.0.",
        "conv_out.": "out.2.",
    }
    for i in range(levels):
        first = i * (layers + 1)
        places[f"down_blocks.{i}.downsamplers.0.conv."] = f"input_blocks.{first + layers + 1}.0.op."
        places[f"up_blocks.{i}.upsamplers.0.conv."] = f"output_blocks.{first + layers}.1.conv."
        places |= {f"down_blocks.{i}.resnets.{j}.": f"input_blocks.{first + j + 1}.0." for j in range(layers)}
        places |= {f"up_blocks.{i}.resnets.{j}.": f"output_blocks.{first + j}.0." for j in range(layers + 1)}
    parts = {
        "norm1.": "in_layers.0.",
        "conv1.": "in_layers.2.",
        "time_emb_proj.": "emb_layers.1.",
        "norm2.": "out_layers.0.",
        "conv2.": "out_layers.3.",
        "conv_shortcut.": "skip_connection.",
    }
    return _renamed(weights, places, parts)


def _first_stage(weights: Weights) -> dict[str, Tensor]:
    # The host has such a table of its own, for four levels only.
    levels = count(weights, "encoder.down_blocks.")
    layers = count(weights, "encoder.down_blocks.0.resnets.")
    places = {
        "mid_block.resnets.0.": "mid.block_1.",
        "mid_block.resnets.1.": "mid.block_2.",
        "mid_block.attentions.0.": "mid.attn_1.",
        "conv_norm_out.": "norm_out.",
    }
    for i in range(levels):
        up = levels - 1 - i
        places[f"down_blocks.{i}.downsamplers.0."] = f"down.{i}.downsample."
        places[f"up_blocks.{i}.upsamplers.0."] = f"up.{up}.upsample."
        places |= {f"down_blocks.{i}.resnets.{j}.": f"down.{i}.block.{j}." for j in range(layers)}
        places |= {f"up_blocks.{i}.resnets.{j}.": f"up.{up}.block.{j}." for j in range(layers + 1)}
    parts = {
        "conv_shortcut.": "nin_shortcut.",
        "group_norm.": "norm.",
        "to_q.": "q.",
        "to_k.": "k.",
        "to_v.": "v.",
        "to_out.0.": "proj_out.",
    }
    renamed = _renamed(weights, places, parts)
    # The attention of CompVis's autoencoder is made of 1x1 convolutions.
    return {k: v[:, :, None, None] if v.ndim == 2 else v for k, v in renamed.items()}


def _renamed(weights: Weights, *tables: Mapping[str, str]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in weights.items():
        for table in tables:
            key = next((key.replace(old, new, 1) for old, new in table.items() if old in key), key)
        renamed[key] = value
    return renamed
