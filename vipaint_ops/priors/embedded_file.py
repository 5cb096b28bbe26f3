"""The file of an embedded prior: read and checked whole, before a network is made of it.

It has the weights of a diffusers AutoencoderKL (``autoencoder.*``) and UNet2DModel (``denoiser.*``). Its metadata have
their configurations, the prediction type and the scaled-linear schedule, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError
from ..settings import Range, check_number

FORMAT = "vipaint-embedded-1"

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LARGEST_WEIGHT = 65504.0
"""The largest number of half precision, in which hosts may run the networks."""
_LARGEST_NUMBER, _MOST_BLOCKS = 4096, 16
"""Limits of a configuration: larger values could take any amount of memory or time."""
_COUNT = Range(1, _LARGEST_NUMBER, whole=True)
_COUNTS = ("in_channels", "out_channels", "latent_channels", "norm_num_groups", "sample_size", "layers_per_block")
_SCHEDULE = {
    "start": Range(0, 1, open=True),
    "end": Range(0, 1, open=True),
    "steps": Range(2, _LARGEST_NUMBER, whole=True),
}
_UNREADABLE = (AttributeError, KeyError, OSError, RecursionError, RuntimeError, SafetensorError, TypeError, ValueError)


@dataclass(frozen=True)
class EmbeddedFile:
    """What such a file holds.

    Attributes:
        tensors: weights of both networks by their name in the file.
        networks: configurations of ``denoiser`` and ``autoencoder``.
        schedule: ``start``, ``end`` and ``steps`` of a scaled-linear schedule.
        prediction_type: what the denoiser predicts.
        digest: a hash of the file, the same for the library and for ComfyUI.
    """

    tensors: dict[str, Tensor]
    networks: dict[str, dict[str, Any]]
    schedule: dict[str, Any]
    prediction_type: str
    digest: str


def is_embedded(path: str | Path) -> bool:
    """Whether a file has the format of the embedded prior in its metadata."""
    try:
        return os.path.isfile(path) and _metadata(path).get("format") == FORMAT
    except _UNREADABLE:
        return False


def read_embedded(path: str | Path) -> EmbeddedFile:
    """Read and check a file.

    Raises:
        InputError: the file is missing, damaged or of another format; or its schedule, its configurations or its
            weights are not such that a network can be made of them.
    """
    if not os.path.isfile(path):
        raise InputError(f"prior {str(path)!r} cannot be read: there is no such file")
    try:
        metadata = _metadata(path)
        if metadata.get("format") != FORMAT:
            raise InputError(f"prior {str(path)!r} has format {metadata.get('format')!r}, not {FORMAT!r}")
        schedule = _schedule(metadata)
        networks = {name: _network(name, metadata) for name in ("denoiser", "autoencoder")}
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        check_tensors(tensors)
        return EmbeddedFile(tensors, networks, schedule, _entry(metadata, "prediction_type"), _digest(path))
    except InputError as error:
        if repr(str(path)) in str(error):
            raise
        raise InputError(f"prior {str(path)!r} is broken: {error}; download or train it again") from error
    except _UNREADABLE as error:
        raise InputError(f"prior {str(path)!r} cannot be read: {error}; is it a complete safetensors file?") from error


def check_tensors(tensors: Mapping[str, Tensor], largest: float = _LARGEST_WEIGHT) -> None:
    """Refuse tensors that are no floating-point numbers, empty, not finite, or beyond ``largest``.

    Raises:
        InputError: see above, with the tensor's name.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS or tensor.numel() == 0:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"its tensor {name!r} is of {kind} and shape {tuple(tensor.shape)}")
        if not tensor.isfinite().all():
            raise InputError(f"its tensor {name!r} contains NaN or infinite values")
        if tensor.abs().max() > largest:
            raise InputError(f"its tensor {name!r} has values above {largest:g}")


def parsed(text: str) -> Any:
    """The value of a text in JSON.

    Raises:
        InputError: it is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except (RecursionError, ValueError) as error:
        raise InputError(f"its metadata are no JSON: {text[:40]!r}") from error


def _metadata(path: str | Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _entry(metadata: Mapping[str, str], name: str) -> str:
    if name not in metadata:
        raise InputError(f"its metadata lack {name}")
    return metadata[name]


def _object(metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    value = parsed(_entry(metadata, name))
    if not isinstance(value, dict):
        raise InputError(f"its {name} is no object with names and values")
    return value


def _schedule(metadata: Mapping[str, str]) -> dict[str, Any]:
    schedule = _object(metadata, "schedule")
    if schedule.keys() != _SCHEDULE.keys():
        raise InputError(f"its schedule has {', '.join(schedule) or 'nothing'}; it must have {', '.join(_SCHEDULE)}")
    for name, allowed in _SCHEDULE.items():
        check_number(f"its schedule's {name}", schedule[name], allowed)
    if not schedule["start"] <= schedule["end"] < 1:
        raise InputError(f"its schedule goes from {schedule['start']} to {schedule['end']}; it must rise, to below 1")
    return schedule


def _network(name: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    settings = _object(metadata, name)
    widths = settings.get("block_out_channels")
    if not isinstance(widths, list) or not 1 <= len(widths) <= _MOST_BLOCKS:
        raise InputError(f"its {name} has no block_out_channels, or more than {_MOST_BLOCKS} blocks")
    named: list[tuple[str, Any]] = [("block_out_channels", width) for width in widths]
    named += [(key, settings[key]) for key in _COUNTS if key in settings]
    for key, value in named:
        check_number(f"its {name}'s {key}", value, _COUNT)
    if settings.get("layers_per_block", 1) > _MOST_BLOCKS:
        raise InputError(f"its {name} has more than {_MOST_BLOCKS} layers in a block")
    if any(width % settings.get("norm_num_groups", 1) for width in widths):
        raise InputError(f"its {name}'s norm_num_groups does not divide its block_out_channels")
    check_number(f"its {name}'s scaling_factor", settings.get("scaling_factor", 1.0), Range(0, open=True))
    _check_rest(name, settings, {*_COUNTS, "scaling_factor"})
    return settings


def _check_rest(name: str, settings: Mapping[str, Any], checked: Iterable[str]) -> None:
    for key in settings.keys() - checked:
        values = settings[key] if isinstance(settings[key], list) else [settings[key]]
        if len(values) > _MOST_BLOCKS or not all(isinstance(v, (bool, int, float, str, type(None))) for v in values):
            raise InputError(f"its {name}'s {key} is no value, or of more than {_MOST_BLOCKS} blocks")
        for value in values:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                check_number(f"its {name}'s {key}", value, Range(0, _LARGEST_NUMBER))


def _digest(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
