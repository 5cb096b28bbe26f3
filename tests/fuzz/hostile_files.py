"""Hostile files of every kind that the library reads, by seed, and what its readers make of them."""

from __future__ import annotations

import functools
import io
import json
import pickle
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save

from tests.ops.conftest import EMBEDDED_METADATA, tiny_networks
from vipaint_ops.errors import InputError
from vipaint_ops.images.pictures import load_image, load_mask
from vipaint_ops.priors.embedded import load_embedded_prior
from vipaint_ops.vipaint import HierarchicalPosterior

KINDS = ("posterior", "checkpoint", "picture", "mask")
_MOST_MEMORY, _MOST_SECONDS = 512 * 2**20, 5.0
"""What reading one file may take."""
_NUMBERS = (
    0,
    -1,
    1,
    0.5,
    2**31,
    2**63,
    10**13,
    10**400,
    1e400,
    float("nan"),
    -float("inf"),
    True,
    None,
    "",
    "1",
    [],
    {},
)
_TEXTS = ("", "NaN", "null", "[" * 100_000, '{"a":' * 50_000, "9" * 5000, '"\\ud800"', "1e999", "{}", "[]", "[{}]", "{")
_DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "U8", "BOOL", "C64", "F4", "spam", 5)
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "TGA")


class _Bomb:
    """Runs code when unpickled."""

    def __reduce__(self):
        return (_run_by_pickle, ())


def _run_by_pickle() -> None:
    raise SystemError("a pickle was run")


def hostile_file(seed: int, folder: Path) -> Path:
    """Write one hostile file, or folder, with its kind in its name."""
    rng = random.Random(seed)
    kind = rng.choice(KINDS)
    images = kind in ("picture", "mask")
    path = Path(folder) / f"{kind}_{seed}.{'png' if images else 'safetensors'}"
    content = (_hostile_picture if images else _hostile_tensors)(kind, rng)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    return path


def check(path: Path) -> str:
    """What the reader of the kind in the file's name makes of it: "ok", "refused", or what was unexpected."""
    kind = Path(path).name.split("_")[0]
    began, before = time.perf_counter(), _peak()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _READERS[kind](Path(path))
    except InputError as error:
        found = "refused" if Path(path).name in str(error) else f"the error does not name the file: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if time.perf_counter() - began > _MOST_SECONDS:
        return f"took {time.perf_counter() - began:.0f} s"
    if _peak() - before > _MOST_MEMORY:
        return f"took {(_peak() - before) >> 20} MiB"
    return found


def _peak() -> int:
    """Largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _read_posterior(path: Path) -> str:
    posterior = HierarchicalPosterior.load(path)
    tensors = posterior.means, posterior.log_stds.exp(), posterior.gates
    numbers = [posterior.eta, *posterior.times, *(v for record in posterior.history for v in record.values())]
    finite = (
        all(tensor.isfinite().all() for tensor in tensors)
        and torch.tensor(numbers, dtype=torch.float64).isfinite().all()
    )
    return "ok" if finite else "silent NaN"


@torch.no_grad()
def _read_checkpoint(path: Path) -> str:
    prior = load_embedded_prior(path)
    z = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(0))
    clean = prior.denoise(z, torch.tensor([0.5]))
    return "ok" if clean.isfinite().all() and prior.decode(clean).isfinite().all() else "silent NaN"


def _read_image(load: Callable[[Path], torch.Tensor], path: Path) -> str:
    picture = load(path)
    return "ok" if picture.numel() and picture.isfinite().all() and picture.abs().max() <= 1 else "silent NaN"


_READERS: dict[str, Callable[[Path], str]] = {
    "posterior": _read_posterior,
    "checkpoint": _read_checkpoint,
    "picture": functools.partial(_read_image, load_image),
    "mask": functools.partial(_read_image, functools.partial(load_mask, white="fill")),
}


@functools.cache
def _valid(kind: str) -> bytes:
    """A small valid file in the format safetensors."""
    if kind == "checkpoint":
        networks = zip(("denoiser", "autoencoder"), tiny_networks(), strict=True)
        weights = {f"{name}.{k}": v.half() for name, network in networks for k, v in network.state_dict().items()}
        return save(weights, EMBEDDED_METADATA)
    generator = torch.Generator().manual_seed(0)
    posterior = HierarchicalPosterior((0.6, 0.4), *torch.randn(3, 2, 4, 4, 4, generator=generator))
    posterior.history = [{"loss": 1.0}, {"loss": 0.5}]
    with tempfile.TemporaryDirectory() as folder:
        posterior.save(Path(folder) / "posterior.safetensors")
        return (Path(folder) / "posterior.safetensors").read_bytes()


def _hostile_tensors(kind: str, rng: random.Random) -> bytes | None:
    content = _valid(kind)
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    change = rng.choice(
        [
            "bytes",
            "header",
            "header",
            "header",
            "values",
            "values",
            "metadata",
            "metadata",
            "settings",
            "settings",
            "other",
        ]
    )
    if change == "other":
        return _other(rng)
    if change == "bytes":
        return _spoilt(content, rng, first=8 + length)
    if change == "values":
        _spoil_values(header, data, rng)
    if change == "header":
        for _ in range(rng.randint(1, 3)):
            _spoil_header(header, rng)
    if change == "metadata":
        _spoil_metadata(header["__metadata__"], rng)
    if change == "settings":
        _spoil_settings(header["__metadata__"], rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + bytes(data)


def _other(rng: random.Random) -> bytes | None:
    """What is no such file at all: a folder, nothing, a pickle, noise, a header of another length."""
    text = b'{"__metadata__":' + b"[" * 100_000
    return rng.choice(
        [
            None,
            b"",
            b"\0" * rng.randint(1, 20),
            pickle.dumps(_Bomb()),
            rng.randbytes(rng.randint(1, 4000)),
            struct.pack("<Q", rng.choice([0, 1, 2**31, 2**63, 2**64 - 1])) + b"{}",
            struct.pack("<Q", len(text)) + text,
            struct.pack("<Q", 2) + b"{}",
        ]
    )


def _spoilt(content: bytes, rng: random.Random, first: int) -> bytes:
    """With bits flipped, mostly among the ``first`` bytes, or cut, or with a part repeated."""
    spoilt = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        spoilt[rng.randrange(min(first, len(spoilt)) if rng.random() < 0.7 else len(spoilt))] ^= 1 << rng.randrange(8)
    at = rng.randrange(len(spoilt))
    match rng.randrange(4):
        case 0:
            del spoilt[at:]
        case 1:
            spoilt[at:at] = spoilt[: rng.randint(1, 100)]
    return bytes(spoilt)


def _spoil_values(header: dict[str, Any], data: bytearray, rng: random.Random) -> None:
    """Values of a tensor: NaN, infinite, or huge ones."""
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    start, end = entry["data_offsets"]
    width = 2 if entry["dtype"] == "F16" else 4
    words = {2: (0x7E00, 0x7C00, 0xFC00, 0x7BFF), 4: (0x7FC00000, 0x7F800000, 0xFF800000, 0x7F7FFFFF)}[width]
    word = rng.choice(words).to_bytes(width, "little")
    for at in rng.sample(range(start, end, width), k=rng.choice([1, (end - start) // width])):
        data[at : at + width] = word


def _spoil_header(header: dict[str, Any], rng: random.Random) -> None:
    name = rng.choice(list(header) or ["means"])
    if name == "__metadata__" or not isinstance(header.get(name), dict):
        header["__metadata__"] = rng.choice([None, [], "text", {"format": 1}, {}])
        return
    entry = header[name]
    match rng.randrange(7):
        case 0:
            entry["dtype"] = rng.choice(_DTYPES)
        case 1:
            entry["shape"] = rng.choice(
                [[], [0], [1], [-1], [2**40, 2**40], [2**62], entry.get("shape", [])[::-1], "text"]
            )
        case 2:
            entry["data_offsets"] = rng.choice([[0, 1], [1, 0], [0, 2**60], [-1, 5], [0], "text", [3, 67]])
        case 3:
            header[rng.choice(["spam", name.upper(), ""])] = header.pop(name)
        case 4:
            header[name] = dict(header[rng.choice(list(header))] or {})
        case 5:
            entry.pop(rng.choice(list(entry) or ["dtype"]), None)
        case 6:
            del header[name]


def _spoil_metadata(metadata: dict[str, str], rng: random.Random) -> None:
    name = rng.choice(list(metadata))
    if rng.random() < 0.15:
        del metadata[name]
    else:
        metadata[name] = rng.choice(_TEXTS)


def _spoil_settings(metadata: dict[str, str], rng: random.Random) -> None:
    """A value anywhere within the JSON of an entry."""
    names = [name for name, text in metadata.items() if text[:1] in "{[0123456789"]
    name = rng.choice(names)
    holder = {"value": json.loads(metadata[name])}
    place: Any = holder
    key: Any = "value"
    while isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.9:
        place = place[key]
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
    place[key] = rng.choice(_NUMBERS)
    if rng.random() < 0.1 and isinstance(place, dict):
        place["spam"] = 1
    metadata[name] = json.dumps(holder["value"])


@functools.cache
def _picture(form: str, mode: str) -> bytes:
    noise = torch.randint(0, 256, (12, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    stored = io.BytesIO()
    Image.fromarray(noise.numpy()).convert(mode).save(stored, form)
    return stored.getvalue()


def _hostile_picture(kind: str, rng: random.Random) -> bytes | None:
    if rng.random() < 0.1:
        return _other(rng)
    return _spoilt(_picture(rng.choice(_FORMATS), "L" if kind == "mask" else "RGB"), rng, first=64)
