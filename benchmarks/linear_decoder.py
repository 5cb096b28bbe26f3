"""How well the linear decoder stands for a real autoencoder, TAEF2 of FLUX.2, on photographs.

    COMFYUI/.venv/bin/python -m benchmarks.linear_decoder COMFYUI WEIGHTS PHOTOGRAPHS

COMFYUI is the folder of ComfyUI, which has the network. WEIGHTS has taef2_encoder.pth and taef2_decoder.pth, and
PHOTOGRAPHS has square PNG files. The map is fitted as in a restoration, without the photographs; a second one is fitted
on other photographs, as an upper bound.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import RESULTS
from vipaint_ops import NoiseSchedule
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.images.pictures import load_image
from vipaint_ops.inference.decoder import LinearDecoder, linear_decoder

CHANNELS, FACTOR = 32, 8
STEPS = (0.1, 0.3, 1.0)
"""Standard deviations of the noise, in those of the latent."""


class Autoencoder:
    """TAEF2 as a prior without a denoiser."""

    identity, data_std = "TAEF2", 1.0
    device, dtype = torch.device("cpu"), torch.float32
    schedule = NoiseSchedule.scaled_linear(0.00085, 0.012)

    def __init__(self, comfyui: Path, weights: Path, side: int):
        sys.path.insert(0, str(comfyui))
        sys.argv = ["main.py", "--cpu"]
        importlib.import_module("comfy.options").enable_args_parsing()
        networks = importlib.import_module("comfy.taesd.taesd")
        self.latent_shape = (CHANNELS, side // FACTOR, side // FACTOR)
        self._encoder = self._loaded(networks.Encoder(CHANNELS, True), weights / "taef2_encoder.pth")
        self._decoder = self._loaded(networks.Decoder(CHANNELS, True), weights / "taef2_decoder.pth")

    @staticmethod
    def _loaded(network: Any, weights: Path) -> Any:
        network.load_state_dict(torch.load(weights, weights_only=True))
        return network.eval().requires_grad_(False)

    def denoise(self, z: Tensor, t: Tensor) -> Tensor:
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        return self._encoder((x + 1) / 2)

    def decode(self, z0: Tensor) -> Tensor:
        return 2 * self._decoder(z0) - 1


def explained(of: Tensor, rest: Tensor) -> float:
    """Share of the variance of pictures that is not in ``rest``."""
    return 1 - (rest.var((2, 3)).sum() / of.var((2, 3)).sum()).item()


def figures(prior: Autoencoder, linear: LinearDecoder, photograph: Tensor, other: Tensor) -> dict[str, float]:
    """The explained shares of a photograph and of changes around it.

    The changes are along J^T of the residual of another photograph, the direction of guidance, and white noise.
    """
    latent = prior.encode(photograph).requires_grad_()
    decoded = prior.decode(latent)
    (gradient,) = torch.autograd.grad(decoded, latent, other - decoded.detach())
    z0, whole = latent.detach(), decoded.detach()
    found = {"photograph": explained(whole, whole - linear.product(z0))}
    noise = torch.randn(z0.shape, generator=torch.Generator().manual_seed(0))
    changes = {"J^T r": STEPS[0] * z0.std() * gradient / gradient.std()}
    changes |= {f"noise {step:g}": step * z0.std() * noise for step in STEPS}
    for name, change in changes.items():
        with torch.no_grad():
            moved = prior.decode(z0 + change) - whole
        found[name] = explained(moved, moved - linear.product(change))
    return found


def adjoint_error(linear: LinearDecoder, shape: tuple[int, ...]) -> float:
    """|<L v, x> - <v, L^T x>| over the product of the norms of L v and x, in float64."""
    generator = torch.Generator().manual_seed(0)
    double = LinearDecoder(linear.weight.double(), linear.factor)
    v = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
    image = double.product(v)
    x = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    difference = (image * x).sum() - (v * double.adjoint(x, v)).sum()
    return (difference.abs() / (image.norm() * x.norm())).item()


def from_arguments(description: str | None) -> tuple[Autoencoder, list[Tensor]]:
    """The autoencoder and the photographs of the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("comfyui", "weights", "photographs"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    photographs = [load_image(path) for path in sorted(options.photographs.glob("*.png"))]
    return Autoencoder(options.comfyui.expanduser(), options.weights, photographs[0].shape[-1]), photographs


def main() -> None:
    """Measure, print, and write the table and the raw numbers."""
    prior, photographs = from_arguments(__doc__)
    counted = CountedPrior(prior)
    usual = linear_decoder(counted)
    assert usual is not None
    half = len(photographs) // 2
    with torch.no_grad():
        z0 = torch.cat([prior.encode(photograph) for photograph in photographs[half:]])
        bound = LinearDecoder.fit(z0, torch.cat([prior.decode(z) for z in z0.split(1)]))
    maps = {"as in a restoration": usual, "of other photographs": bound}
    rows = {}
    for name, linear in maps.items():
        each = [figures(prior, linear, *pair) for pair in pairwise(photographs[: half + 1])]
        rows[name] = {key: fmean(one[key] for one in each) for key in each[0]}
        rows[name]["adjoint error"] = adjoint_error(linear, prior.latent_shape)
    counts = counted.evaluations
    lines = [
        "# The linear decoder on a real autoencoder",
        "",
        f"TAEF2 (32 channels, 8 x 8 pixels a cell), {half} photographs of {photographs[0].shape[-1]} pixels: share of "
        "the variance of the decoded picture, and of its changes, that the map explains. The changes are along J^T r, "
        "0.1 standard deviations of the latent long, and white noise in the latent "
        f"(`benchmarks/linear_decoder.py`). The map of a restoration took {counts.encoder_forward} rows of the encoder "
        f"and {counts.decoder_forward} of the decoder; it reports {usual.explained:.3f}.",
        "",
        "| map | " + " | ".join(rows["as in a restoration"]) + " |",
        "|---" * (len(rows["as in a restoration"]) + 1) + "|",
    ]
    for name, row in rows.items():
        shares = [f"{value:.3f}" for key, value in row.items() if key != "adjoint error"]
        lines.append(f"| {name} | " + " | ".join([*shares, f"{row['adjoint error']:.0e}"]) + " |")
    print("\n".join(lines))
    (RESULTS / "linear_decoder.md").write_text("\n".join(lines) + "\n")
    (RESULTS / "linear_decoder.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
