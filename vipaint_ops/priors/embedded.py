"""The embedded prior: a small latent diffusion model of 64-pixel scenes, in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..diffusion.schedule import NoiseSchedule
from ..errors import InputError, missing_package
from .diffusers import DiffusersPrior, Training, one_line

FORMAT = "vipaint-embedded-1"
EMBEDDED_PRIOR = Path(__file__).parents[1] / "assets" / "embedded_prior.safetensors"
EMBEDDED_SIZE = 64
"""Side of the training pictures of the embedded prior, in pixels."""

_LARGEST_NUMBER, _MOST_BLOCKS = 4096, 16
"""Limits of a configuration: larger values could take any amount of memory or time."""


def is_embedded(path: str | Path) -> bool:
    """Whether a file has the format of the embedded prior in its metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (OSError, SafetensorError, UnicodeError):
        return False


def load_embedded_prior(
    path: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> DiffusersPrior:
    """Load the embedded prior, or another prior of the same format.

    The file has the weights of a diffusers AutoencoderKL (``autoencoder.*``) and UNet2DModel (``denoiser.*``). Its
    metadata have their configurations, the prediction type and the scaled-linear schedule, as JSON.

    Args:
        path: the file. Default: the shipped one.
        device: of the networks.
        dtype: of the networks; the weights are converted to it.

    Raises:
        InputError: the file is missing or corrupt, or its configuration does not fit its weights; or
            diffusers is not installed.
    """
    path = EMBEDDED_PRIOR if path is None else Path(path)
    metadata, tensors = _read(path)
    try:
        networks = _build(metadata, tensors, dtype)
        settings = _settings(metadata["schedule"])
        training = Training(NoiseSchedule.scaled_linear(**settings), metadata["prediction_type"], settings["steps"])
        return DiffusersPrior(networks["denoiser"].to(device), networks["autoencoder"].to(device), training)
    except torch.OutOfMemoryError:
        raise
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    except Exception as error:  # a damaged configuration can raise any exception
        raise InputError(f"prior {str(path)!r} is broken: {one_line(error)}; download or train it again") from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"prior {str(path)!r} cannot be read: {error}; is it a complete safetensors file?") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"prior {str(path)!r} has format {metadata.get('format')!r}, not {FORMAT!r}")
    return metadata, tensors


def _build(metadata: dict[str, str], tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, nn.Module]:
    """Both networks with their weights. They are built without storage, so that a wrong size takes no memory."""
    from diffusers import AutoencoderKL, UNet2DModel

    networks: dict[str, nn.Module] = {}
    kinds: dict[str, Any] = {"autoencoder": AutoencoderKL, "denoiser": UNet2DModel}
    for name, kind in kinds.items():
        weights = {k.removeprefix(name + "."): v.to(dtype) for k, v in tensors.items() if k.startswith(name + ".")}
        if not all(v.isfinite().all() for v in weights.values()):
            raise InputError(f"the weights of its {name} contain NaN or infinite values")
        with torch.device("meta"):
            networks[name] = kind(**_settings(metadata[name]))
        networks[name].load_state_dict(weights, assign=True)
    return networks


def _settings(text: str) -> dict[str, Any]:
    settings = json.loads(text)
    lists = [value if isinstance(value, list) else [value] for value in settings.values()]
    numbers = [n for values in lists for n in values if isinstance(n, (int, float))]
    if not all(0 <= n <= _LARGEST_NUMBER for n in numbers):
        raise InputError(f"its configuration has numbers outside [0, {_LARGEST_NUMBER}]")
    if max(settings.get("layers_per_block", 1), *map(len, lists)) > _MOST_BLOCKS:
        raise InputError(f"its configuration has more than {_MOST_BLOCKS} blocks or layers")
    return settings
