"""Pipelines of diffusers on disk: folders, each network with all of its weights, and single files."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError

_ESSENTIAL = (("unet", "transformer"), ("vae", "vqvae"), ("scheduler",))
_NETWORKS = ("unet", "transformer", "vae", "vqvae", "text_encoder")
_UNUSED = ("safety_checker", "image_encoder", "feature_extractor")


def load_pipeline(path: Path, dtype: torch.dtype, config: str | Path | None) -> tuple[Any, list[str]]:
    """The pipeline of a folder or a file, and the names of listed parts that a folder lacks.

    Text parts may be lacking. In the pipeline they are None, like parts that are not for denoising. ``config`` is a
    folder with the configuration of a file.

    Raises:
        InputError: the denoiser, autoencoder or scheduler is lacking, a class is unknown, or weights are lacking.
        ModuleNotFoundError: the pipeline needs a package that is not installed.
    """
    return _load_folder(path, dtype) if path.is_dir() else (_load_file(path, dtype, config), [])


def _load_folder(path: Path, dtype: torch.dtype) -> tuple[Any, list[str]]:
    index = pipeline_index(path)
    kind = _pipeline_class(path, index)
    listed = {name: part for name, part in index.items() if isinstance(part, list) and all(part)}
    present = {name for name in listed if (path / name).is_dir() and name not in _UNUSED}
    for names in _ESSENTIAL:
        if not present.intersection(names):
            raise InputError(f"{str(path)!r} has no folder {' or '.join(names)}: download the model again")
    parts: dict[str, Any] = {name: None for name in kind._get_signature_types() if name not in present}
    for name in present:
        if name.startswith(_NETWORKS):
            parts[name] = _network(path / name, listed[name], dtype)
    pipeline = kind.from_pretrained(str(path), torch_dtype=dtype, local_files_only=True, **parts)
    return pipeline, [name for name in listed if name not in present and name not in _UNUSED]


def pipeline_index(folder: Path) -> dict[str, Any]:
    """The list of the parts of a pipeline.

    Raises:
        InputError: it is missing or broken, or names code of its own.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(folder)!r} is not a diffusers folder: model_index.json is missing or broken") from error
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise InputError(f"{str(folder)!r} has a pipeline class of its own; only those of diffusers are loaded")
    return index


def _pipeline_class(folder: Path, index: dict[str, Any]) -> Any:
    kind = _class(folder, "diffusers", index["_class_name"])
    for package in getattr(kind, "_backends", ()):  # of the placeholder in diffusers for a class that it cannot load
        importlib.import_module(package)
    if not hasattr(kind, "_get_signature_types"):
        raise InputError(
            f"{str(folder)!r} names {index['_class_name']}, which is no pipeline: download the model again"
        )
    return kind


def _class(folder: Path, library: str, name: str) -> Any:
    found = getattr(importlib.import_module(library), name, None) if library in ("diffusers", "transformers") else None
    if not isinstance(found, type):
        raise InputError(
            f"{str(folder)!r} is a {name} of {library}, which is not there: update diffusers and transformers, "
            "or give another model"
        )
    return found


def network_class(folder: Path, part: Any) -> Any:
    """The class of an entry of the list of parts.

    Raises:
        InputError: it is not there.
    """
    if not isinstance(part, list) or len(part) != 2 or not all(part):
        raise InputError(f"{str(folder)!r} lists no class for one of its networks: download the model again")
    return _class(folder, *part)


def _network(folder: Path, part: list[str], dtype: torch.dtype) -> Any:
    name, kind = part[1], network_class(folder, part)
    plain = [file for file in folder.glob("*.safetensors") if ".fp16." not in file.name]
    variant = "fp16" if not plain and any(folder.glob("*.fp16.*")) else None
    network, info = kind.from_pretrained(
        str(folder), local_files_only=True, output_loading_info=True, torch_dtype=dtype, variant=variant
    )
    if lacking := sorted(info["missing_keys"]):
        raise InputError(
            f"{str(folder)!r} lacks {len(lacking)} weights of {name}, such as {lacking[0]}: download the model again"
        )
    return network


def config_folder(path: Path, config: str | Path | None) -> Path:
    """The folder with the configuration of a single-file checkpoint: ``config``, or one of the Hugging Face cache.

    Raises:
        InputError: the file is none, or the cache has no configuration for it.
    """
    if path.suffix not in (".safetensors", ".ckpt"):
        raise InputError(f"prior {str(path)!r} is neither a folder nor a .safetensors or .ckpt file")
    return _cached_config(path) if config is None else Path(config)


def _load_file(path: Path, dtype: torch.dtype, config: str | Path | None) -> Any:
    folder = config_folder(path, config)
    kind = _pipeline_class(folder, pipeline_index(folder))
    if not hasattr(kind, "from_single_file"):
        raise InputError(f"a {kind.__name__} has no form of a single file: give a diffusers folder")
    return kind.from_single_file(str(path), config=str(folder), torch_dtype=dtype, local_files_only=True)


def _cached_config(path: Path) -> Path:
    """The folder of the local Hugging Face cache with the configuration of a single-file checkpoint."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint
    from huggingface_hub import snapshot_download

    repository = fetch_diffusers_config(load_single_file_checkpoint(str(path)))["pretrained_model_name_or_path"]
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (OSError, ValueError) as error:
        raise InputError(
            f"prior {str(path)!r} needs the configuration of {repository!r}, which is not on this machine; "
            "give a diffusers folder of the same model family with --prior-config"
        ) from error
