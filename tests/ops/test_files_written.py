"""Files that the command writes: all of a run or none, never over others, whatever stops it.

A run is a fork of this process, with stand-ins for the fit and the sampling. Python reports its file operations to
audit hooks; the hook here stops the run, or fails the operation, at one of them.
"""

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.ops.conftest import save_embedded, scene
from vipaint_ops import Evaluations, SampleResult, restoration
from vipaint_ops.cli import commands as cli_commands
from vipaint_ops.cli import models as cli_models
from vipaint_ops.cli import results as cli_results
from vipaint_ops.cli.claim import claimed
from vipaint_ops.cli.main import main
from vipaint_ops.cli.output import ResultFolder
from vipaint_ops.cli.parser import build_parser
from vipaint_ops.images.pictures import png, save_image
from vipaint_ops.priors.embedded import load_embedded_prior
from vipaint_ops.vipaint import HierarchicalPosterior
from vipaint_ops.vipaint.posterior import describe

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forks")

CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
NAMES = {"sheet.png", "keypoints.png", "posterior.safetensors", "metrics.json"}


class Fault:
    """At the k-th change of a file below ``folder``: a signal, or an error of the system."""

    def __init__(self, folder: Path, k: int, kind: int | OSError):
        self.folder, self.k, self.kind, self.seen = os.fsencode(folder), k, kind, 0

    def __call__(self, event: str, arguments: tuple) -> None:
        if event not in CHANGES or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        written = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not written or not os.path.abspath(os.fsencode(arguments[0])).startswith(self.folder):
            return
        self.seen += 1
        if isinstance(self.kind, OSError):
            if self.seen >= self.k:
                raise self.kind
        elif self.seen == self.k:
            os.kill(os.getpid(), self.kind)


def run(arguments, fault=None, limit=None):
    """Run the command in a fork; returns its status (negative: killed by a signal) and the lines on stderr."""
    with tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if not child:
            status = 70
            try:
                with open(os.devnull, "w") as nothing, redirect_stderr(errors), redirect_stdout(nothing):
                    if fault is not None:
                        sys.addaudithook(fault)
                    if limit is not None:
                        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                    status = main(arguments)
            except SystemExit as stop:
                status = stop.code
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        return status, errors.read().splitlines()


def content(folder):
    """Every file and folder below a folder, with its bytes."""
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture(autouse=True, scope="module")
def instant(tmp_path_factory):
    """Stand-ins for the model, the fit, the sampling and the plots, which cost nothing."""
    prior = load_embedded_prior(save_embedded(tmp_path_factory.mktemp("prior") / "tiny.safetensors"))
    plots = {name: png(np.zeros((4, 4, 3), np.uint8)) for name in ("sheet.png", "keypoints.png")}

    def fit(prior, observation, config, *, generator, callback):
        posterior = HierarchicalPosterior((0.5,), *torch.zeros(3, 1, *prior.latent_shape))
        posterior.metadata = describe(prior) | {"observation": observation.digest, "noise_std": "0.02"}
        return posterior

    def sample(prior, observation, posterior, count, config, *, generator, first, callback):
        return SampleResult(torch.zeros(1), observation.y.repeat(count, 1, 1, 1), Evaluations())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_models, "load_embedded_prior", lambda *_: prior)
        patch.setattr(cli_commands, "fit_posterior", fit)
        patch.setattr(restoration, "sample_posterior", sample)
        patch.setattr(cli_results, "png", lambda pixels: pixels if isinstance(pixels, bytes) else png(pixels))
        patch.setattr(cli_results, "_plots", lambda *_: plots)
        yield


@pytest.fixture
def inputs(tmp_path):
    return draw_inputs(tmp_path / "inputs")


def draw_inputs(folder):
    folder.mkdir()
    save_image(folder / "scene.png", scene())
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return ["--image", str(folder / "scene.png"), "--mask", str(folder / "mask.png"), "--white", "known"]


COMMANDS = {
    "inpaint": lambda inputs, out: ["inpaint", *inputs, "--samples", "2", "--out", str(out)],
    "fit": lambda inputs, out: ["fit", *inputs, "--posterior", str(out / "a.safetensors")],
}


def operations_of(command, out):
    """Number of changes of files that a run makes."""
    counting = Fault(out.parent, 10**9, 0)
    with copied(out.parent), tempfile.TemporaryFile("w+") as counted:
        child = os.fork()
        if not child:
            sys.addaudithook(counting)
            with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
                status = main(command)
            print(counting.seen if status == 0 else 0, file=counted, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        counted.seek(0)
        return int(counted.read())


@contextmanager
def copied(base):
    """The folder that a run changes; it is put back at the end."""
    with tempfile.TemporaryDirectory() as folder:
        saved = shutil.copytree(base, Path(folder) / "saved")
        yield base / "out"
        shutil.rmtree(base)
        shutil.copytree(saved, base)


def is_finished(name, out, state):
    """Whether the output folder has the results of the new run, and nothing else but what was there."""
    notes = set() if state == "new" else {"notes.txt"}
    if not out.is_dir() or any((out / note).read_text() != "mine" for note in notes):
        return False
    if name == "fit":
        return {path.name for path in out.iterdir() if path.is_file()} == {"a.safetensors"} | notes
    record = json.loads((out / "metrics.json").read_text()) if (out / "metrics.json").is_file() else {"files": {}}
    found = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name not in notes}
    expected = NAMES | {"sample_00.png", "sample_01.png"}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in found.items() if name != "metrics.json"}
    return set(found) == expected and record["files"] == digests


@pytest.fixture(params=["new", "empty", "earlier"])
def state(request):
    """What is in the output folder before the run."""
    return request.param


def prepare(state, name, inputs, out):
    """Bring the output folder into a state; returns the arguments of the run."""
    command = COMMANDS[name](inputs, out)
    out.parent.mkdir()
    if state != "new":
        out.mkdir(parents=True)
        (out / "notes.txt").write_text("mine")
    if state == "earlier":
        assert run([*command, *(["--samples", "4"] if name == "inpaint" else []), "--seed", "3"]) == (0, [])
        return [*command, "--overwrite"]
    return command


STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_at_any_change_of_a_file_leaves_all_or_nothing(name, state, inputs, tmp_path):
    """The signals take turns. After SIGKILL, the next run must find nothing that it takes for results."""
    base = tmp_path / "base"
    command = prepare(state, name, inputs, base / "out")
    total = operations_of(command, base / "out")
    assert total > 5
    for k in range(1, total + 1):
        kind = STOPS[k % len(STOPS)]
        with copied(base) as out:
            before, pictures = content(base), content(tmp_path / "inputs")
            status, lines = run(command, Fault(base, k, kind))
            assert content(tmp_path / "inputs") == pictures
            if status == 0:
                assert not lines
                assert is_finished(name, out, state)
            elif kind != signal.SIGKILL:
                assert (status, lines) == (128 + kind, ["vipaint: interrupted: nothing was written"])
                assert content(base) == before
            else:
                assert status == -kind
                assert 0 in (run(command)[0], run([*command, "--overwrite"])[0])
                assert is_finished(name, out, state)
                assert not list(out.glob(".vipaint*"))


REFUSALS = [OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT)]


@contextmanager
def kept_results(tmp_path):
    """An empty folder for temporary files, where results go that could not be written to their place."""
    kept = tmp_path / "kept"
    kept.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(kept))
        yield kept
    shutil.rmtree(kept)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_fails_from_any_change_of_a_file_on_leaves_all_or_nothing(name, state, inputs, tmp_path):
    """What was computed is in the folder that the message names, or is refused before the work."""
    base = tmp_path / "base"
    command = prepare(state, name, inputs, base / "out")
    for k in range(1, operations_of(command, base / "out") + 1):
        with copied(base) as out, kept_results(tmp_path) as kept:
            before = content(base)
            status, lines = run(command, Fault(base, k, REFUSALS[k % len(REFUSALS)]))
            if status == 0:
                assert is_finished(name, out, state)
                continue
            assert (status, len(lines)) == (2, 1)
            assert lines[0].startswith(f"vipaint: error: cannot write to '{out}'")
            if "the results are in" in lines[0]:
                (folder,) = kept.iterdir()
                assert str(folder) in lines[0]
                assert (folder / ("metrics.json" if name == "inpaint" else "a.safetensors")).is_file()
            else:
                assert not list(kept.iterdir())
            # The disk is still broken, so the run could not clean up: the next run does.
            assert run(command) == (0, [])
            assert is_finished(name, out, state)
            assert {k: v for k, v in content(base).items() if k in before and "notes" in k} == {
                k: v for k, v in before.items() if "notes" in k
            }


def test_without_locks_two_runs_do_not_write_to_one_folder(inputs, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    out = tmp_path / "out"
    command = COMMANDS["inpaint"](inputs, out)
    with claimed(ResultFolder(build_parser().parse_args(command)), 0):
        status, (line,) = run(command)
        assert (status, "another run is writing" in line) == (2, True)
        assert str(out / ".vipaint-run/running") in line
    assert run(command) == (0, [])
    assert is_finished("inpaint", out, "new")


def test_two_runs_do_not_write_to_one_folder(inputs, tmp_path):
    out = tmp_path / "out"
    command = COMMANDS["inpaint"](inputs, out)
    with claimed(ResultFolder(build_parser().parse_args(command)), 0):
        status, (line,) = run([*command, "--overwrite"])
        assert (status, "another run is writing" in line) == (2, True)
    assert not out.exists()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_files_have_the_modes_of_the_umask(mask, inputs, tmp_path):
    before = os.umask(mask)
    try:
        assert run(COMMANDS["inpaint"](inputs, tmp_path / "out")) == (0, [])
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o666 & ~mask}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_whose_name_is_no_unicode_is_as_any_other(name, inputs, tmp_path):
    out = tmp_path / os.fsdecode(b"\xff\xfe")
    assert run(COMMANDS[name](inputs, out)) == (0, [])
    assert is_finished(name, out, "new")


@pytest.mark.parametrize("option", ["--image", "--mask", "--truth"])
def test_inputs_are_never_replaced(option, inputs, tmp_path):
    """Not even by a run whose record lists them as its own."""
    out = tmp_path / "out"
    command = COMMANDS["inpaint"](inputs, out)
    assert run(command) == (0, [])
    before = content(out)
    status, (line,) = run([*command, option, str(out / "sample_00.png"), "--overwrite"])
    assert status == 2
    assert line.startswith(f"vipaint: error: {option} "), line
    assert content(out) == before


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_an_import_is_answered_in_one_line(kind, monkeypatch, capfd):
    """Python swallows what is raised in the callbacks of an import."""

    def parser():
        os.kill(os.getpid(), kind)
        time.sleep(0.01)
        return build_parser()

    monkeypatch.setattr(sys.modules["vipaint_ops.cli.main"], "build_parser", parser)
    before = signal.signal(kind, signal.SIG_DFL)  # a shell's background jobs ignore SIGINT
    try:
        assert main(["demo", "--out", "nowhere"]) == 128 + kind
    finally:
        signal.signal(kind, before)
    assert capfd.readouterr().err == "vipaint: interrupted: nothing was written\n"
