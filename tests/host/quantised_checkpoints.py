"""Tiny SD3 transformers with quantised weights, in the formats that ComfyUI and ComfyUI-GGUF load.

Each format comes with a twin: the same weights, dequantised, in an ordinary checkpoint.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.host.tiny_checkpoints import Weights, flux, sd3

# The host reads sizes of the model from the other matrices.
_QUANTISED = ("t_embedder.", "joint_blocks.", "final_layer.", "double_blocks.", "single_blocks.")
_FP8_MAX, _FP4_MAX, _INT8_MAX = 448.0, 6.0, 127.0
_FP4_VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
_FP4_BLOCK, _GGUF_BLOCK = 16, 32
_GGUF_ALIGNMENT, _GGUF_STRING, _GGUF_F32, _GGUF_Q8_0 = 32, 8, 0, 8

Quantised = tuple[dict[str, Tensor], Tensor]
"""Stored tensors by the end of their names, and the weight that they stand for."""


@dataclass(frozen=True)
class Format:
    """How one layer is stored.

    Attributes:
        quantise: of a weight ``[outputs, inputs]``, multiples of 16.
        layer: entry of a layer in the metadata of ComfyUI; none in the older form, which has one key for the model.
    """

    quantise: Callable[[Tensor], Quantised]
    layer: dict[str, object] | None = None


def scaled_fp8(weight: Tensor) -> Quantised:
    """float8_e4m3fn with one scale, older names."""
    stored, dequantised = fp8(weight)
    return {"weight": stored["weight"], "scale_weight": stored["weight_scale"]}, dequantised


def fp8(weight: Tensor, dtype: torch.dtype = torch.float8_e4m3fn) -> Quantised:
    """An 8-bit float with one scale."""
    scale = weight.abs().max() / torch.finfo(dtype).max
    data = (weight / scale).to(dtype)
    return {"weight": data, "weight_scale": scale}, data.float() * scale


def int8(weight: Tensor) -> Quantised:
    """8-bit integers with one scale."""
    scale = weight.abs().max() / _INT8_MAX
    data = (weight / scale).round().to(torch.int8)
    return {"weight": data, "weight_scale": scale}, data.float() * scale


def nvfp4(weight: Tensor) -> Quantised:
    """4-bit floats, two in a byte, with a float8 scale for each block of 16 and one scale for all."""
    tensor_scale = weight.abs().max() / (_FP8_MAX * _FP4_MAX)
    blocks = weight.unflatten(1, (-1, _FP4_BLOCK))
    block_scale = (blocks.abs().amax(-1) / _FP4_MAX / tensor_scale).to(torch.float8_e4m3fn)
    scale = (block_scale.float() * tensor_scale).unsqueeze(-1)
    codes = ((blocks / scale).abs().unsqueeze(-1) - _FP4_VALUES).abs().argmin(-1)
    dequantised = (_FP4_VALUES[codes] * blocks.sign() * scale).flatten(1)
    codes = (codes + 8 * (blocks < 0)).flatten(1).to(torch.uint8)
    stored = {
        "weight": codes[:, ::2] * 16 + codes[:, 1::2],
        "weight_scale": _tiled(block_scale),
        "weight_scale_2": tensor_scale,
    }
    return stored, dequantised


def _tiled(scales: Tensor) -> Tensor:
    """Block scales in the layout of cuBLAS: tiles of 128 x 4, each as 32 x 16."""
    rows, columns = scales.shape
    height, width = math.ceil(rows / 128), math.ceil(columns / 4)
    padded = torch.zeros(height * 128, width * 4)
    padded[:rows, :columns] = scales.float()
    tiles = padded.view(height, 128, width, 4).permute(0, 2, 1, 3)
    tiles = tiles.reshape(-1, 4, 32, 4).transpose(1, 2).reshape(height * 128, width * 4)
    return tiles.to(torch.float8_e4m3fn)


def q8_0(weight: Tensor) -> Quantised:
    """Blocks of 32 8-bit integers, each after its float16 scale, as bytes."""
    blocks = weight.reshape(-1, _GGUF_BLOCK)
    scale = (blocks.abs().amax(1, keepdim=True) / _INT8_MAX).half()
    data = (blocks / scale.float()).round().clamp(-127, 127).to(torch.int8)
    stored = torch.cat([scale.view(torch.uint8), data.view(torch.uint8)], dim=1)
    return {"weight": stored}, (data.half() * scale).float().view_as(weight)


FORMATS = {
    "scaled_fp8": Format(scaled_fp8),
    "fp8": Format(fp8, {"format": "float8_e4m3fn"}),
    "fp8_e5m2": Format(lambda weight: fp8(weight, torch.float8_e5m2), {"format": "float8_e5m2"}),
    "int8": Format(int8, {"format": "int8_tensorwise"}),
    "nvfp4": Format(nvfp4, {"format": "nvfp4"}),
    "gguf": Format(q8_0),
}


def write_all(models: Path) -> None:
    """Write ``diffusion_models/tiny_sd3_<format>``, and its dequantised twin ``tiny_sd3_<format>_plain``.

    The files are .safetensors, except ``tiny_sd3_gguf.gguf`` and ``tiny_flux_gguf.gguf``.
    """
    folder = models / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    for name, form in FORMATS.items():
        stored, plain, layers = _quantised(lambda weights: sd3(weights, prefix=""), form)
        save_file(plain, folder / f"tiny_sd3_{name}_plain.safetensors")
        path = folder / f"tiny_sd3_{name}.safetensors"
        if name == "gguf":
            _write_gguf(path.with_suffix(".gguf"), "sd3", stored, plain)
        elif form.layer is None:
            save_file(stored | {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}, path)
        else:
            metadata = {"_quantization_metadata": json.dumps({"layers": dict.fromkeys(layers, form.layer)})}
            save_file(stored, path, metadata)
    stored, plain, _ = _quantised(flux, FORMATS["gguf"])
    _write_gguf(folder / "tiny_flux_gguf.gguf", "flux", stored, plain)


def _quantised(
    build: Callable[[Weights], None], form: Format
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """The stored tensors, the ordinary ones, and the names of the quantised layers."""
    weights = Weights()
    build(weights)
    plain, stored, layers = dict(weights.tensors), dict(weights.tensors), []
    for key in [key for key, value in plain.items() if value.ndim == 2 and key.startswith(_QUANTISED)]:
        layer = key.removesuffix(".weight")
        parts, plain[key] = form.quantise(plain[key])
        del stored[key]
        stored |= {f"{layer}.{end}": part for end, part in parts.items()}
        layers.append(layer)
    return stored, plain, layers


def _write_gguf(path: Path, architecture: str, tensors: dict[str, Tensor], plain: dict[str, Tensor]) -> None:
    """GGUF version 3; bytes among ``tensors`` are weights in Q8_0, of the shape in ``plain``."""
    entries = [(b"general.architecture", architecture.encode())]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries))
    for key, value in entries:
        head += _gguf_string(key) + struct.pack("<I", _GGUF_STRING) + _gguf_string(value)
    body = b""
    for name, tensor in tensors.items():
        shape, kind = plain[name].shape, _GGUF_Q8_0 if tensor.dtype == torch.uint8 else _GGUF_F32
        head += _gguf_string(name.encode()) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", kind, len(body))
        body += _gguf_aligned(tensor.contiguous().numpy().tobytes())
    path.write_bytes(_gguf_aligned(head) + body)


def _gguf_string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _gguf_aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % _GGUF_ALIGNMENT)
