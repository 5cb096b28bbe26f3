"""The colour shift of a real autoencoder in a hole, and what corrections by the known pixels leave of it.

    COMFYUI/.venv/bin/python -m benchmarks.colour_shift COMFYUI WEIGHTS PHOTOGRAPHS

The arguments are those of ``benchmarks.linear_decoder``. A photograph that is encoded and decoded stands for a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.linear_decoder import from_arguments
from benchmarks.report import RESULTS
from vipaint_ops.images import masks

_LEVELS = 127.5
"""Levels of 255 to a unit of [-1, 1]."""
CORRECTIONS = {
    "none": lambda sample, picture, mask: sample,
    "without_shift (the default)": masks.without_shift,
    "match_colours": masks.match_colours,
}


def holes(side: int) -> dict[str, Tensor]:
    """Masks, 1 at known pixels."""
    generator = torch.Generator().manual_seed(0)
    return {
        "box": masks.box(side, side, side * 2 // 5),
        "small box": masks.box(side, side, side // 6),
        "half": masks.half_plane(side, side),
        "strokes": masks.brush_strokes(side, side, 0.25, generator=generator),
    }


def shift(sample: Tensor, picture: Tensor, mask: Tensor) -> float:
    """Mean error of the channels in the hole, as an absolute value, in levels of 255."""
    error = ((sample - picture) * (1 - mask)).sum((2, 3)) / (1 - mask).sum()
    return _LEVELS * error.abs().mean().item()


@torch.no_grad()
def main() -> None:
    """Measure, print and write the table."""
    prior, photographs = from_arguments(__doc__)
    side = photographs[0].shape[-1]
    samples = [prior.decode(prior.encode(photograph)) for photograph in photographs]
    lines = [
        "# Colour shift of a real autoencoder in a hole",
        "",
        f"TAEF2, {len(photographs)} photographs of {side} pixels, encoded and decoded: mean error of a channel in the "
        "hole, in levels of 255 (`benchmarks/colour_shift.py`).",
        "",
        "| correction | " + " | ".join(holes(side)) + " |",
        "|---" * (len(holes(side)) + 1) + "|",
    ]
    for name, correct in CORRECTIONS.items():
        means = []
        for mask in holes(side).values():
            known = mask.reshape(1, 1, side, side)
            errors = [
                shift(correct(sample, picture, known), picture, known)
                for sample, picture in zip(samples, photographs, strict=True)
            ]
            means.append(sum(errors) / len(errors))
        lines.append(f"| {name} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")
    print("\n".join(lines))
    (RESULTS / "colour_shift.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
