"""Throughput of `vipaint batch` on this machine: the same scenes on one worker and on several, with equal files.

    python -m benchmarks.batch                  # 40 scenes, 1 and 2 workers, the figures of docs/scale.md
    python -m benchmarks.batch --items 4        # a quick look

Each worker has one thread. Times are those of the whole command, from the start of Python to its end. CPU seconds are
those of all its processes: where other programs use the cores, they tell more than the time on the clock. Unix only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from tools.scenes import SIZE, sample_scenes
from vipaint_ops.images.masks import half_plane
from vipaint_ops.images.pictures import save_image

SETTINGS = ["--preset", "fast", "--samples", "1", "--steps", "4", "--device", "cpu"]
TIMED = "seconds"


def draw(folder: Path, count: int) -> None:
    """Scenes and their masks, of which the right half is white."""
    for kind in ("photos", "masks"):
        (folder / kind).mkdir()
    mask = (1 - half_plane(SIZE, SIZE)).expand(1, 3, -1, -1)
    for k, picture in enumerate(sample_scenes(count, seed=5)[0]):
        save_image(folder / "photos" / f"scene_{k:02d}.png", 2 * torch.from_numpy(np.asarray(picture))[None] - 1)
        save_image(folder / "masks" / f"scene_{k:02d}.png", 2 * mask - 1)


def run(folder: Path, workers: int) -> tuple[float, float]:
    """Seconds of a batch, on the clock and of CPU time."""
    command = [sys.executable, "-m", "vipaint_ops.cli", "batch", str(folder / "photos"), "--masks"]
    command += [str(folder / "masks"), "--out", str(folder / f"by {workers}"), "--workers", str(workers)]
    start, before = perf_counter(), _cpu_seconds()
    subprocess.run([*command, "--", *SETTINGS], check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - start, _cpu_seconds() - before


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of every file of the items, without the times in their records."""
    found = {}
    for path in out.glob("*/*"):
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps({k: v for k, v in json.loads(content).items() if k != TIMED}).encode()
        found[str(path.relative_to(out))] = hashlib.sha256(content).hexdigest()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    print("| workers | seconds | CPU seconds | items a minute | ÷ first | load before | files | equal to the first's |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, options.items)
        first: tuple[float, dict[str, str]] | None = None
        for workers in options.workers:
            load = os.getloadavg()[0]
            (seconds, cpu), files = run(folder, workers), digests(folder / f"by {workers}")
            first = first or (seconds, files)
            print(
                f"| {workers} | {seconds:.0f} | {cpu:.0f} | {60 * options.items / seconds:.1f} "
                f"| {first[0] / seconds:.2f} | {load:.1f} | {len(files)} | {'yes' if files == first[1] else 'NO'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
