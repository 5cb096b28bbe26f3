"""The folders that a random command line runs in: inputs of every kind, and what is in the place of the results."""

from __future__ import annotations

import functools
import io
import os
import random
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from tests.fuzz.hostile_files import KINDS, hostile_file
from tests.ops.conftest import save_embedded, scene
from vipaint_ops.cli.main import main
from vipaint_ops.images.pictures import save_image

STATES = (
    "absent",
    "empty",
    "earlier",
    "changed",
    "without record",
    "foreign",
    "inputs",
    "read-only",
    "file",
    "link",
    "dangling",
    "stale",
    "claim is a file",
)
"""What is in the place of the results before the run."""


@functools.cache
def _made() -> dict[str, dict[str, bytes]]:
    """Inputs, and the results of an earlier run, by name."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, out = Path(folder) / "inputs", Path(folder) / "out"
        inputs.mkdir()
        save_image(inputs / "scene.png", scene())
        save_image(inputs / "small.png", scene(16, 16))
        save_image(inputs / "wide.png", scene(40, 90))
        mask = np.zeros((64, 64), np.uint8)
        mask[:, :32] = 255
        Image.fromarray(mask).save(inputs / "mask.png")
        Image.fromarray(np.dstack([mask, mask, mask, mask])).save(inputs / "clear.png")
        save_embedded(inputs / "tiny.safetensors")
        words = ["inpaint", f"--image={inputs / 'scene.png'}", f"--mask={inputs / 'mask.png'}", f"--out={out}"]
        words += ["--white=known"]
        words += [f"--prior={inputs / 'tiny.safetensors'}", "--preset=fast", "--iterations=1", "--steps=2"]
        with redirect_stderr(io.StringIO()) as errors, redirect_stdout(io.StringIO()):
            if main([*words, "--samples=3"]):
                raise RuntimeError(errors.getvalue())
        shutil.copy(out / "posterior.safetensors", inputs / "fit.safetensors")
        return {part.name: {path.name: path.read_bytes() for path in part.iterdir()} for part in (inputs, out)}


def lay_out(seed: int, arguments: tuple[str, ...], state: str, base: Path) -> set[Path]:
    """Write the files of a case; returns those that the command may replace."""
    inputs = base / "inputs"
    for folder in (inputs, base / "cwd"):
        folder.mkdir(parents=True)
    _put(_made()["inputs"], inputs)
    (inputs / "dangling.png").symlink_to(base / "nowhere")
    os.mkfifo(inputs / "fifo")
    for kind in KINDS if any("bad_" in word for word in arguments) else ():
        seeds = range(1000 * seed, 1000 * seed + 1000)
        seed = next(seed for seed in seeds if random.Random(seed).choice(KINDS) == kind)
        hostile_file(seed, inputs).rename(inputs / f"bad_{kind}")
    return _put_state(seed, arguments[0] == "fit", state, base)


def _put_state(seed: int, fits: bool, state: str, base: Path) -> set[Path]:
    out = base / "out"
    earlier = {"a.safetensors": _made()["inputs"]["fit.safetensors"]} if fits else _made()["out"]
    if state == "file":
        out.write_text("mine")
    elif state == "dangling":
        out.symlink_to(base / "nowhere")
    elif state == "link":
        (base / "elsewhere").mkdir()
        out.symlink_to(base / "elsewhere")
    elif state != "absent":
        out.mkdir()
    if state in ("earlier", "changed", "without record"):
        _put(earlier, out)
        (out / "notes.txt").write_text("mine")
    if state == "changed":
        (out / ("a.safetensors" if fits else "sheet.png")).write_text("mine")
    if state == "without record":
        (out / "metrics.json").unlink(missing_ok=True)
    if state == "foreign":
        for name in ("sample_holiday.png", "sheet.png", "a.safetensors")[random.Random(seed).randrange(3) :]:
            (out / name).write_bytes(_made()["inputs"]["scene.png"])
    if state == "inputs":
        shutil.copy(base / "inputs/scene.png", out / "sample_00.png")
    if state == "stale":
        (out / ".vipaint-run/new").mkdir(parents=True)
        (out / ".vipaint-run/new/sheet.png").write_text("half")
        (out / ".vipaint-run/journal.json").write_text('{"sheet.png": "')
    if state == "claim is a file":
        (out / ".vipaint-run").write_text("mine")
    if state == "read-only":
        out.chmod(0o555)
    whole = state == "earlier" or (fits and state == "without record")
    return {out / name for name in earlier} if whole else set()


def _put(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
