"""A tiny model with random weights in the format of the embedded prior, for fast tests."""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel
from safetensors.torch import save_file

from vipaint_ops import FitConfig

AUTOENCODER = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 64,
    "scaling_factor": 1.0,
}
DENOISER = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 16,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D"] * 2,
    "up_block_types": ["UpBlock2D"] * 2,
    "layers_per_block": 1,
    "add_attention": False,
    "norm_num_groups": 4,
}
EMBEDDED_METADATA = {
    "format": "vipaint-embedded-1",
    "autoencoder": json.dumps(AUTOENCODER),
    "denoiser": json.dumps(DENOISER),
    "prediction_type": "v_prediction",
    "schedule": json.dumps({"start": 0.0015, "end": 0.0195, "steps": 1000}),
}


def tiny_networks(seed=0):
    """A denoiser and an autoencoder with the configurations above.

    The denoiser's output is small, so that guided chains stay finite: zero is the exact v-prediction for standard
    normal latents.
    """
    torch.manual_seed(seed)
    denoiser, autoencoder = UNet2DModel(**DENOISER), AutoencoderKL(**AUTOENCODER)
    denoiser.conv_out.weight.data *= 0.1
    return denoiser, autoencoder


def save_embedded(path, seed=0, metadata=None, **tensors):
    """Write a random prior in the embedded format. ``tensors`` replace weights; None removes one."""
    denoiser, autoencoder = tiny_networks(seed)
    weights = {f"denoiser.{k}": v for k, v in denoiser.state_dict().items()}
    weights |= {f"autoencoder.{k}": v for k, v in autoencoder.state_dict().items()}
    weights = {k: v.half() for k, v in (weights | tensors).items() if v is not None}
    save_file(weights, path, EMBEDDED_METADATA if metadata is None else metadata)
    return path


def scene(height=64, width=64):
    """A smooth picture in [-1, 1], ``[1, 3, height, width]``."""
    rows, columns = torch.linspace(0, math.pi, height)[:, None], torch.linspace(0, 3, width)[None]
    return torch.stack([(rows + columns).sin(), (rows * columns).cos(), (rows - columns).sin()])[None] * 0.8


@dataclass(frozen=True)
class SmallFit(FitConfig):
    """A fit with a very short start, for fast tests."""

    samples: int = 2
    start_chains: int = 2
    start_steps: int = 2


@pytest.fixture(scope="session")
def embedded_file(tmp_path_factory):
    """Path of a random prior in the embedded format."""
    return save_embedded(tmp_path_factory.mktemp("prior") / "tiny.safetensors")
