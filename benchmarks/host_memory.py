"""Memory and time of Stable Diffusion 1.5 at full size inside ComfyUI, with random weights, on the CPU.

    COMFYUI_PATH=~/comfy/ComfyUI python -m benchmarks.host_memory    # about 20 minutes on 2 cores

The tasks: one gradient through denoiser and decoder together with classifier-free guidance, with and without
recomputed blocks; decoding without gradient; a fit of five iterations with one sample at 64 pixels. They run in
processes of ComfyUI's Python. The table has the resident memory before the task, the peak above it, and the prediction
of benchmarks/full_size.py for one row. Kernels of the CPU need one copy of a convolution's input, which the prediction
does not have: it shows where no graph is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
from datetime import date
from pathlib import Path

import torch

from benchmarks.architectures import ARCHITECTURES, row
from benchmarks.counts import WHOLE
from benchmarks.full_size import Costs, peak_memory, table
from benchmarks.report import RESULTS

ROOT = Path(__file__).parents[1]


RUNS = (("float32", 256), ("float32", 512), ("float32", 64))
"""Precision and picture side of each process. Few CPUs are fast enough in bfloat16."""


def child(comfyui: Path, dtype: str, side: int) -> dict[str, dict[str, float]]:
    """The measurements of each task in a process of ComfyUI's Python."""
    python = os.environ.get("COMFYUI_PYTHON") or str(comfyui / ".venv/bin/python")
    command = [python, "-m", "benchmarks.inside_comfyui", str(comfyui), dtype, str(side)]
    # Without it the C library keeps freed tensors, and resident memory is not that of the live ones.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    output = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def predicted(task: str, dtype: str, side: int) -> float:
    """The peak above the weights in MiB, as benchmarks/full_size.py computes it."""
    sd15, found = ARCHITECTURES[0], {}
    for name, network in sd15.networks().items():
        shape = (1, network.shape[1], *(size * side // 512 for size in network.shape[2:]))
        checkpointed = task == "gradient on" and name != "encoder"
        found[name] = row(dataclasses.replace(network, shape=shape), checkpointed, getattr(torch, dtype))
    costs = Costs(**found)
    size = costs.decoder.working if task == "decode" else peak_memory(0, costs, 1, sd15.guided, WHOLE)
    return size / 2**20


def lines_of(comfyui: Path, dtype: str, side: int) -> list[list[str]]:
    """The lines of the table for one process."""
    lines = []
    for task, found in child(comfyui, dtype, side).items():
        numbers = [f"{found[name]:.0f}" for name in ("before", "extra")]
        if task == "fit and sample":
            numbers += ["", ""]
        else:
            expected = predicted(task, dtype, side)
            numbers += [f"{expected:.0f}", f"{found['extra'] / expected:.2f}"]
        lines.append([task, dtype, str(side), *numbers, f"{found['seconds']:.0f}"])
        print(" | ".join(lines[-1]), flush=True)
    return lines


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    comfyui = Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()
    if not (comfyui / "main.py").is_file():
        print(f"no ComfyUI at {comfyui}: set COMFYUI_PATH to its folder")
        return
    header = ["task, checkpointing", "dtype", "picture", "before, MiB", "peak above", "predicted", "ratio", "s"]
    lines: list[list[str]] = []
    for dtype, side in RUNS:
        lines += lines_of(comfyui, dtype, side)
        text = f"# Memory inside ComfyUI\n\nSD1.5, one row, CPU, {date.today()}.\n\n{table(header, lines)}\n"
        (RESULTS / "host_memory.md").write_text(text)


if __name__ == "__main__":
    main()
