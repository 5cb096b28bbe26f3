"""Random command lines of ``vipaint`` on random folders, by seed, and what came of them.

The options are read from the parser. A path of a case starts with ``@/``, which stands for the folder that it runs in.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import re
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import traceback
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from PIL import Image

from tests.fuzz.command_folders import STATES, lay_out
from tests.fuzz.hostile_files import KINDS
from vipaint_ops.cli.main import main
from vipaint_ops.cli.parser import build_parser
from vipaint_ops.vipaint import HierarchicalPosterior

ROOT = Path(__file__).parents[2]
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
_SECONDS = 300
_RESULT = re.compile(
    r"(sample_\d{2,}|samples_(mean|spread|different)|sheet|fit|keypoints|degraded(_mask|_kernel)?)\.png"
    r"|posterior(_\d+)?\.safetensors|metrics\.json"
)
_COMMANDS = ("demo", "inpaint", "inpaint", "deblur", "upscale", "fit", "sample", "sample", "degrade", "compare", "info")
_QUICK = {"iterations": "012", "steps": "234", "samples": "12", "particles": "12", "keypoints": ["0.6,0.4", "0.5"]}
_QUICK |= {"first": "019", "factor": "24", "kernel_size": "37", "feather": "05", "set": ["eta=0.5", "noisy=true"]}
_SETTINGS = (
    "steps=3",
    "=",
    "a=b",
    "times=[0.5]",
    "eta=nan",
    "noisy=1",
    "guidance=kalman",
    "eta=[[",
    "eta=" + "[" * 9999,
)
_HOSTILE = (
    *("nan", "inf", "-inf", "1e400", "-1", "0", "-0.0", "0.5", "1e-300", "1e30", "5e-324", "", " ", "9" * 5000),
    *("1_0", "\N{FULLWIDTH DIGIT TWO}", "0x10", "é\N{SNOWMAN}", os.fsdecode(b"\xff\xfe"), "a" * 300, "two\nlines"),
    *("--", "@file", "%s", "{}", "[/]", "../../escaped", "/dev/null", "/dev/full", "/proc/self/mem", "/"),
)
_TIMES = ("0.4,0.6", "0.5,0.5", "1,0", ",", "nan,0.5", "0.5,inf", "1e-300", "0.9,0.5,0.1", "1", "1.0001,0.5", "0.5,")
_DEVICES = ("cpu:0", "cpu:1", "cuda", "cuda:99", "cuda:-1", "mps", "meta", "CPU", "auto:0", "cpu:00")
_READ = ("image", "mask", "truth", "kernel", "prior", "prior_config", "posterior")
_FILES = (
    *(
        "scene.png",
        "small.png",
        "mask.png",
        "wide.png",
        "clear.png",
        "fit.safetensors",
        "tiny.safetensors",
        "",
        "absent.png",
    ),
    *("dangling.png", "fifo", *(f"bad_{kind}" for kind in KINDS)),
)


@dataclass(frozen=True)
class Case:
    """A command line.

    Attributes:
        arguments: the words of the command.
        state: one of ``STATES``.
        stop: a signal, at random within the seconds of a run.
        limit: the most bytes that a file may have; None for no limit.
    """

    seed: int
    arguments: tuple[str, ...]
    state: str
    stop: int | None = None
    limit: int | None = None


def commands(seed: int) -> Case:
    """The command line of a seed: sane options, of which up to three are odd."""
    rng = random.Random(seed)
    name = rng.choice(_COMMANDS)
    state = rng.choice(["absent", "empty", *STATES])
    known = {action.dest: action for action in _parser_of(name)._actions if action.option_strings}
    given = {option: value for option, value in _sane(name, state, rng).items() if option in known}
    choices = sorted(set(known) - {"help"})
    for option in rng.sample(choices, k=rng.choice([0, 0, 1, 1, 2, 3])):
        given[option] = _odd(known[option], rng)
    words = [_word(known[option], value) for option, value in given.items() if value is not None]
    words += _positional(name, rng)
    rng.shuffle(words)
    if rng.random() < 0.03:
        words.append(rng.choice(["--spam", "spam", "--out", "--", ""]))
    fault = rng.random()
    stop = rng.choice(_STOPS) if fault < 0.04 else None
    limit = rng.choice([0, 100, 3000, 20_000]) if 0.04 <= fault < 0.06 else None
    return Case(seed, (name, *words), state, stop, limit)


def check(case: Case, folder: Path) -> str:
    """Run a case in an empty folder: "ok", "refused", or what was unexpected."""
    base = folder / "base"
    replaceable = lay_out(case.seed, case.arguments, case.state, base)
    arguments = [word.replace("@/", f"{base}/") for word in case.arguments]
    before = _content(base)
    (folder / "kept").mkdir()
    try:
        status, errors = _run(case, arguments, folder)
    except subprocess.TimeoutExpired:
        return "hang"
    found = _judge(status, errors, case, base, before)
    if status == -signal.SIGKILL:
        status, errors = _run_here(arguments, folder)
        found = _judge(status, errors, case, base, before)
    if found:
        return found
    if status == 0 or (case.stop == signal.SIGKILL and _content(base) != before):
        return _results(build_parser().parse_args(arguments), base, before, replaceable)
    return "refused"


def _parser_of(name: str) -> argparse.ArgumentParser:
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return commands.choices[name]


def _sane(name: str, state: str, rng: random.Random) -> dict[str, str | None]:
    scene = "@/inputs/small.png" if name == "upscale" else "@/inputs/scene.png"
    masked = name != "upscale" and (name not in ("deblur", "degrade") or rng.random() < 0.5)
    mask = rng.choice(["half", "box", "pixels"]) if name == "demo" else "@/inputs/mask.png"
    blurred = name in ("deblur", "degrade") and rng.random() < 0.8
    return {
        "image": "@/out/sample_00.png" if state == "inputs" and name != "fit" else scene,
        "mask": mask if masked else None,
        "white": rng.choice(["known", "known", "fill", None]),
        "truth": "@/inputs/scene.png" if name == "compare" else None,
        "blur": rng.choice(["gaussian", "motion"]) if blurred else None,
        "kernel_size": "7" if blurred else None,
        "factor": "4" if name == "upscale" else None,
        "posterior": "@/out/a.safetensors" if name == "fit" else "@/inputs/fit.safetensors",
        "prior": None if rng.random() < 0.1 else "@/inputs/tiny.safetensors",
        "preset": "fast",
        "method": "ding" if rng.random() < 0.2 else None,
        "out": "@/out",
        "overwrite": "" if rng.random() < 0.5 else None,
        **{option: rng.choice(_QUICK[option]) for option in ("iterations", "steps", "samples", "keypoints")},
    }


def _positional(name: str, rng: random.Random) -> list[str]:
    """The words without an option: pictures to compare, or a checkpoint to describe."""
    plain = {"compare": "scene.png", "info": "tiny.safetensors"}.get(name)
    return [f"@/inputs/{rng.choice([plain, plain, *_FILES])}"] if plain else []


def _odd(action: argparse.Action, rng: random.Random) -> str | None:
    option = action.dest
    if rng.random() < 0.05:
        return None
    if action.nargs == 0:
        return ""
    if option == "out":
        return rng.choice(["@/inputs", "@/new/deep/er", "@/out/..", "@/inputs/scene.png", "@/out/é\n", *_HOSTILE])
    if option in _READ:
        return rng.choice([f"@/inputs/{name}" for name in _FILES] * 2 + ["@/out", *_HOSTILE])
    if option in _QUICK and rng.random() < 0.3:
        return rng.choice(_QUICK[option])
    if option == "keypoints":
        return rng.choice([*_TIMES, *_HOSTILE])
    if option == "set":
        return rng.choice([*_QUICK[option], *_SETTINGS, *_HOSTILE])
    if option == "device":
        return rng.choice([*_DEVICES, *_HOSTILE])
    quick = {"preset": ["fast"], "method": ["ding", "blended", "kalman"]}.get(option, list(action.choices or ()))
    return rng.choice([*quick * 4, *_HOSTILE])


def _word(action: argparse.Action, value: str) -> str:
    return action.option_strings[0] + ("" if action.nargs == 0 else f"={value}")


def _content(base: Path) -> dict[Path, Any]:
    """Every file, link and folder, with its mode and bytes; not what a killed run has left in its working folder."""
    found: dict[Path, Any] = {}
    for path in base.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            found[path] = os.readlink(path)
        elif ".vipaint-run" not in str(path.parent.name) + path.name:
            found[path] = (mode, hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) else "")
    return {path: what for path, what in found.items() if ".vipaint-run" not in str(path)}


def _run(case: Case, arguments: list[str], folder: Path) -> tuple[int, str]:
    if case.stop is None and case.limit is None:
        return _run_here(arguments, folder)
    limit = case.limit

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = [sys.executable, "-m", "vipaint_ops.cli", *(word.replace("\0", "") for word in arguments)]
    environment = os.environ | {"TMPDIR": str(folder / "kept"), "PYTHONPATH": str(ROOT), "HOME": str(folder / "kept")}
    with subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=folder / "base/cwd",
        preexec_fn=None if limit is None else limited,
    ) as process:
        try:
            if case.stop is not None:
                try:
                    errors = _end(process, random.Random().uniform(0, 15))
                    return process.returncode, errors
                except subprocess.TimeoutExpired:
                    process.send_signal(case.stop)
            errors = _end(process, _SECONDS)
            return process.returncode, errors
        finally:
            process.kill()


def _end(process: subprocess.Popen[bytes], seconds: float) -> str:
    return process.communicate(timeout=seconds)[1].decode(errors="replace")


def _run_here(arguments: list[str], folder: Path) -> tuple[int, str]:
    errors = io.StringIO()
    with (
        redirect_stderr(errors),
        redirect_stdout(io.StringIO()),
        chdir(folder / "base/cwd"),
        mock.patch.object(tempfile, "tempdir", str(folder / "kept")),
    ):
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
            status = 1
    return status, errors.getvalue()


def _judge(status: int, errors: str, case: Case, base: Path, before: dict[Path, Any]) -> str:
    """What is wrong with the end of a run; empty if nothing is."""
    lines = [line for line in errors.splitlines() if not line.startswith("vipaint: notice: ")]
    stops = () if case.stop is None else (128 + case.stop, -case.stop)
    if status not in (0, 2, *stops) or "Traceback" in errors:
        begun = "vipaint_ops" in errors or case.stop != signal.SIGINT
        return f"status {status}: {' '.join(lines[-4:])[-300:]}" if begun else ""
    if status < 0:
        return "" if status == -signal.SIGKILL or _content(base) == before else f"status {status} with changes"
    if len(lines) != (status != 0):
        return f"status {status} with {len(lines)} lines: {' | '.join(lines)[:300]}"
    if status and not re.match("vipaint: (error|interrupted): ", lines[0]):
        return f"no documented line: {lines[0][:300]}"
    if status and case.stop != signal.SIGKILL:
        return _changes(before, _content(base))
    return ""


def _changes(before: dict[Path, Any], after: dict[Path, Any]) -> str:
    names = sorted(path.name for path in before.keys() | after if before.get(path) != after.get(path))
    return f"refused, but changed {', '.join(names)[:200]}" if names else ""


def _results(options: argparse.Namespace, base: Path, before: dict[Path, Any], replaceable: set[Path]) -> str:
    """What is wrong with the files of a run that succeeded; "ok" if nothing is."""
    fits = options.command == "fit"
    if not fits and getattr(options, "out", None) is None:
        return "left files" if _content(base) != before else "ok"
    place = base / "cwd" / (Path(options.posterior) if fits else Path(options.out))
    folder = (place.parent if fits else place).resolve()
    after = _content(base)
    mine = {path.resolve() for path in replaceable} if options.overwrite else set()
    for path in before.keys() | after:
        if before.get(path) == after.get(path) or (path not in before and path.is_dir()):
            continue
        named = path.name == place.name if fits else bool(_RESULT.fullmatch(path.name))
        if path in before and path.resolve() not in mine:
            return f"changed {path.name}, which is not its own"
        if path.resolve().parent != folder or not named:
            return f"left {path.name}"
    if any(folder.glob(".vipaint-run-*" if fits else ".vipaint*")):
        return "left its working folder"
    for path in [place] if fits else folder.glob("posterior*.safetensors"):
        posterior = HierarchicalPosterior.load(path)
        if not (posterior.means.isfinite().all() and posterior.log_stds.isfinite().all()):
            return "a posterior with NaN"
    return "ok" if fits else _pictures(options, folder)


def _pictures(options: argparse.Namespace, folder: Path) -> str:
    try:
        record = json.loads((folder / "metrics.json").read_text(), parse_constant=_no_number)
    except ValueError as error:
        return f"metrics.json: {error}"
    found = {path.name for path in folder.iterdir() if _RESULT.fullmatch(path.name)} - {"metrics.json"}
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in found}
    if digests != record["files"]:
        return "the record is not that of the files"
    samples = sorted(name for name in found if name.startswith("sample_"))
    for name in samples:
        with Image.open(folder / name) as picture:
            picture.load()
    expected = getattr(options, "samples", 0)
    return "ok" if len(samples) == expected else f"{len(samples)} samples of {expected}"


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
