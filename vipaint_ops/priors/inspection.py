"""What a checkpoint on disk is, from its configuration: no weights are loaded."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import InputError, missing_package
from .diffusers import one_line
from .embedded import empty_networks, training_in
from .embedded_file import is_embedded, read_embedded
from .networks import Autoencoder, Denoiser, adapted, overflows
from .pipelines import config_folder, network_class, pipeline_index
from .training import Training, training_of

_TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint without its weights: the networks are on the meta device.

    Attributes:
        pipeline: class of its pipeline in diffusers, or "embedded prior".
        dtype: of most weights of the denoiser on disk; None where the file does not tell, or for another format.
    """

    pipeline: str
    denoiser: Denoiser
    autoencoder: Autoencoder
    training: Training
    dtype: torch.dtype | None

    @property
    def picture_multiple(self) -> int:
        """Both sides of a picture are padded to multiples of this."""
        return self.denoiser.picture_multiple

    def to(self, dtype: torch.dtype) -> None:
        """Convert the networks as a run in ``dtype`` does."""
        autoencoder = self.autoencoder.network
        # Not the method of diffusers, which warns of conversions.
        nn.Module.to(self.denoiser.network, dtype)
        nn.Module.to(autoencoder, torch.float32 if overflows(autoencoder, dtype) else dtype)


def inspected(path: str | Path, config: str | Path | None = None) -> Checkpoint:
    """Read what a checkpoint is: a diffusers folder, a single file or an embedded prior.

    Args:
        config: for a single file, as in :func:`~vipaint_ops.priors.diffusers.from_pipeline`.

    Raises:
        InputError: it does not exist, is no checkpoint, or its model is not supported.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"checkpoint {str(path)!r} does not exist; give a diffusers folder or a checkpoint file")
    try:
        if is_embedded(path):
            return _embedded(path)
        folder = path if path.is_dir() else config_folder(path, config)
        return _diffusers(path, folder)
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"checkpoint {str(path)!r}: {error}") from error
    except Exception as error:  # for a broken configuration, diffusers raises exceptions of many types
        raise InputError(f"checkpoint {str(path)!r} cannot be read: {one_line(error)}") from error


def _diffusers(path: Path, folder: Path) -> Checkpoint:
    index = pipeline_index(folder)
    denoiser, autoencoder = (_network(folder, index, names) for names in (("unet", "transformer"), ("vae", "vqvae")))
    part = "unet" if "unet" in index else "transformer"
    weights = path / part if path.is_dir() else path
    kind = network_class(folder, index["scheduler"])
    scheduler = kind.from_config(kind.load_config(str(folder / "scheduler"), local_files_only=True))
    return Checkpoint(index["_class_name"], *adapted(denoiser, autoencoder), training_of(scheduler), _dtype_of(weights))


def _network(folder: Path, index: dict[str, Any], names: tuple[str, str]) -> nn.Module:
    name = next((name for name in names if name in index), None)
    if name is None:
        raise InputError(f"{str(folder)!r} has no {' or '.join(names)}: download the model again")
    kind = network_class(folder, index[name])
    with torch.device("meta"):
        return (
            kind.from_config(kind.load_config(str(folder / name), local_files_only=True)).requires_grad_(False).eval()
        )


def _embedded(path: Path) -> Checkpoint:
    file = read_embedded(path)
    networks = empty_networks(file)
    parts = adapted(networks["denoiser"], networks["autoencoder"])
    return Checkpoint("embedded prior", *parts, training_in(file), _dtype_of(path))


def _dtype_of(place: Path) -> torch.dtype | None:
    """The type of most weights in a safetensors file or in the first one of a folder."""
    files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
    if not files or files[0].suffix != ".safetensors":
        return None
    count: Counter[str] = Counter()
    try:
        with safe_open(str(files[0]), framework="pt") as file:
            for weight in map(file.get_slice, file.keys()):
                count[weight.get_dtype()] += torch.Size(weight.get_shape()).numel()
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise InputError(f"{str(files[0])!r} is damaged: {one_line(error)}; download it again") from error
    return _TYPES.get(count.most_common(1)[0][0]) if count else None
