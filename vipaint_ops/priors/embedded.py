"""The embedded prior: a small latent diffusion model of 64-pixel scenes, in one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..diffusion.schedule import NoiseSchedule
from ..errors import InputError, missing_package
from .diffusers import DiffusersPrior, Training, one_line
from .embedded_file import EmbeddedFile, read_embedded
from .embedded_file import is_embedded as is_embedded

EMBEDDED_PRIOR = Path(__file__).parents[1] / "assets" / "embedded_prior.safetensors"
EMBEDDED_SIZE = 64
"""Side of the training pictures of the embedded prior, in pixels."""


def load_embedded_prior(
    path: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> DiffusersPrior:
    """Load the embedded prior, or another prior of the same format.

    Its format is that of :mod:`~vipaint_ops.priors.embedded_file`.

    Args:
        path: the file. Default: the shipped one.
        device: of the networks.
        dtype: of the networks; the weights are converted to it.

    Raises:
        InputError: the file is missing or corrupt, or its configuration does not fit its weights; or
            diffusers is not installed.
    """
    path = EMBEDDED_PRIOR if path is None else Path(path)
    file = read_embedded(path)
    try:
        networks = _build(file, dtype)
        prior = DiffusersPrior(networks["denoiser"].to(device), networks["autoencoder"].to(device), training_in(file))
    except torch.OutOfMemoryError:
        raise
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    except Exception as error:  # a damaged configuration can raise any exception
        raise InputError(f"prior {str(path)!r} is broken: {one_line(error)}; download or train it again") from error
    prior.weights_file = file.digest
    return prior


def _build(file: EmbeddedFile, dtype: torch.dtype) -> dict[str, nn.Module]:
    """Both networks with their weights. They are built without storage, so that a wrong size takes no memory."""
    networks = empty_networks(file)
    for name, network in networks.items():
        prefix = name + "."
        weights = {k.removeprefix(prefix): v.to(dtype) for k, v in file.tensors.items() if k.startswith(prefix)}
        network.load_state_dict(weights, assign=True)
    return networks


def empty_networks(file: EmbeddedFile) -> dict[str, nn.Module]:
    """``denoiser`` and ``autoencoder`` on the meta device."""
    from diffusers import AutoencoderKL, UNet2DModel

    kinds: dict[str, Any] = {"autoencoder": AutoencoderKL, "denoiser": UNet2DModel}
    with torch.device("meta"):
        return {name: kind(**file.networks[name]) for name, kind in kinds.items()}


def training_in(file: EmbeddedFile) -> Training:
    """The parametrisation of the denoiser."""
    return Training(NoiseSchedule.scaled_linear(**file.schedule), file.prediction_type, file.schedule["steps"])
