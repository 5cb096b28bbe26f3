"""Errors of the command: one line, exit status 2, no network loaded, nothing written."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.ops.conftest import save_embedded, scene
from vipaint_ops import Evaluations, SampleResult, restoration
from vipaint_ops.cli import commands as cli_commands
from vipaint_ops.cli import models as cli_models
from vipaint_ops.cli.main import main
from vipaint_ops.images.pictures import save_image
from vipaint_ops.vipaint import HierarchicalPosterior
from vipaint_ops.vipaint.posterior import describe


@pytest.fixture
def files(tmp_path, embedded_file):
    """The working folder of a test, with valid and broken files."""
    save_image(tmp_path / "scene.png", scene())
    save_image(tmp_path / "small.png", scene(32, 32))
    save_image(tmp_path / "wide.png", scene(32, 64))
    half = np.zeros((64, 64), dtype=np.uint8)
    half[:, :32] = 255
    for name, mask in {"mask": half, "white": half * 0 + 255, "black": half * 0, "wide_mask": half[::2]}.items():
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    Image.fromarray(np.full((64, 64), np.nan, dtype=np.float32)).save(tmp_path / "nan.tiff")
    whole = (tmp_path / "scene.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (64, 64)).save(tmp_path / "broken.dds")
    whole = (tmp_path / "broken.dds").read_bytes()
    (tmp_path / "broken.dds").write_bytes(whole[:76] + bytes([255] * 52))
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "sheet.png").write_text("precious")
    (tmp_path / "prior.safetensors").symlink_to(embedded_file)
    return tmp_path


@pytest.fixture(autouse=True)
def instant(monkeypatch):
    """Stand-ins for the fit and the sampling that do no work."""

    def fit(prior, observation, config, *, generator, callback):
        posterior = HierarchicalPosterior((0.5,), *torch.zeros(3, 1, *prior.latent_shape))
        posterior.metadata = describe(prior) | {"observation": observation.digest}
        return posterior

    def sample(prior, observation, posterior, count, config, *, generator, first, callback):
        posterior.check(prior)
        posterior.check_observation(observation)
        return SampleResult(torch.zeros(count, 4, 16, 16), observation.y.repeat(count, 1, 1, 1), Evaluations())

    monkeypatch.setattr(cli_commands, "fit_posterior", fit)
    monkeypatch.setattr(restoration, "sample_posterior", sample)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(cli_models, "load_embedded_prior", refuse)


def run(files, arguments, monkeypatch, capsys):
    """Run in the folder ``files``; returns the status and the lines on stderr."""
    monkeypatch.chdir(files)
    before = {path: path.stat().st_mtime_ns for path in files.rglob("*")}
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert {path: path.stat().st_mtime_ns for path in files.rglob("*")} == before
    return status, capsys.readouterr().err.splitlines()


INPAINT = {"--image": "scene.png", "--mask": "mask.png", "--white": "known", "--out": "out"}
FIT = {"--image": "scene.png", "--mask": "mask.png", "--white": "known", "--posterior": "fit.safetensors"}
DEBLUR = {"--image": "scene.png", "--blur": "gaussian", "--out": "out"}
UPSCALE = {"--image": "scene.png", "--out": "out"}
SAMPLE = INPAINT | {"--posterior": "fit.safetensors"}
ODD_DEVICES = [
    "cpu:x",
    "cpu:",
    "cpu:00",
    "cuda:",
    "mps:",
    ":",
    "",
    "cpu:\N{SUPERSCRIPT TWO}",
    "cpu:1",
    "cpu:-0",
    "meta",
]
ODD_DEVICES += ["CPU", " cpu", "cpu\n", "cpu:\N{ARABIC-INDIC DIGIT ZERO}", "cpu:" + 5000 * "0", "xpu:0:0"]
CASES = [
    ("inpaint", INPAINT | {"--image": "absent.png"}, "absent.png"),
    ("inpaint", INPAINT | {"--image": "text.png"}, "'text.png' cannot be read"),
    ("inpaint", INPAINT | {"--image": "cut.png"}, "'cut.png' cannot be read"),
    ("inpaint", INPAINT | {"--image": "full"}, "'full' cannot be read"),
    ("inpaint", INPAINT | {"--image": "nan.tiff"}, "'nan.tiff' has NaN"),
    ("inpaint", INPAINT | {"--mask": "absent.png"}, "mask 'absent.png' cannot be read"),
    ("inpaint", INPAINT | {"--image": "mask.png", "--mask": "scene.png"}, "'scene.png' has colours"),
    ("inpaint", INPAINT | {"--image": "broken.dds"}, "picture 'broken.dds' cannot be read"),
    ("inpaint", INPAINT | {"--mask": "white.png"}, "mask has no hole"),
    ("inpaint", INPAINT | {"--mask": "black.png"}, "mask observes nothing"),
    ("inpaint", INPAINT | {"--mask": "wide_mask.png"}, "aspects differ"),
    ("inpaint", INPAINT | {"--truth": "small.png"}, "--truth is 32x32 and the picture 64x64"),
    ("inpaint", INPAINT | {"--out": "full"}, "'full' has results already (sheet.png)"),
    ("inpaint", INPAINT | {"--out": "text.png"}, "'text.png' is not a folder"),
    ("inpaint", INPAINT | {"--out": "text.png/deeper"}, "is not a folder"),
    ("inpaint", INPAINT | {"--keypoints": "0.3,0.5"}, "keypoints are [0.3, 0.5]"),
    ("inpaint", INPAINT | {"--keypoints": "0.5,0.5"}, "keypoints are [0.5, 0.5]"),
    ("inpaint", INPAINT | {"--keypoints": "1.5,0.5"}, "keypoints are [1.5, 0.5]"),
    ("inpaint", INPAINT | {"--keypoints": "nan"}, "keypoints are [nan]"),
    ("inpaint", INPAINT | {"--keypoints": "high"}, "--keypoints: invalid times value: 'high'"),
    ("inpaint", INPAINT | {"--samples": "0"}, "--samples: 0 is not between"),
    ("inpaint", INPAINT | {"--samples": "many"}, "--samples: invalid integer value: 'many'"),
    ("inpaint", INPAINT | {"--noise-std": "0"}, "--noise-std: 0 is not positive"),
    ("inpaint", INPAINT | {"--noise-std": "nan"}, "--noise-std: nan is not a finite number"),
    ("inpaint", INPAINT | {"--seed": "-1"}, "--seed: -1 is not between"),
    ("inpaint", INPAINT | {"--steps": "0"}, "--steps: 0 is not between"),
    ("inpaint", INPAINT | {"--cfg": "inf"}, "--cfg: inf is not a finite number"),
    ("inpaint", INPAINT | {"--guidance": "magic"}, "--guidance: invalid choice: 'magic'"),
    ("inpaint", INPAINT | {"--prompt": "a house"}, "takes no text"),
    ("inpaint", INPAINT | {"--device": "tpu"}, "--device 'tpu' is not on this machine"),
    ("inpaint", INPAINT | {"--device": "cuda:99"}, "--device 'cuda:99' is not on this machine"),
    *[("inpaint", INPAINT | {"--device": word}, f"--device {word!r} is not on this machine") for word in ODD_DEVICES],
    ("inpaint", INPAINT | {"--prompt": "\udcff"}, "--prompt: invalid text value"),
    ("inpaint", INPAINT | {"--prior": "absent"}, "prior 'absent' does not exist"),
    ("inpaint", INPAINT | {"--prior": "full"}, "'full' is not a diffusers folder"),
    ("inpaint", INPAINT | {"--prior": "text.png"}, "neither a folder"),
    ("inpaint", INPAINT | {"--prior": "text.safetensors"}, "'text.safetensors' cannot be loaded"),
    ("inpaint", {"--image": "scene.png", "--mask": "mask.png"}, "--out"),
    ("fit", FIT | {"--posterior": "text.safetensors"}, "'text.safetensors' exists already"),
    ("fit", FIT | {"--posterior": "full"}, "'full' exists already"),
    ("fit", FIT | {"--posterior": "text.png/fit.safetensors"}, "is not a folder"),
    ("sample", SAMPLE, "fit.safetensors does not exist"),
    ("sample", SAMPLE | {"--posterior": "text.safetensors"}, "not a readable posterior"),
    ("sample", SAMPLE | {"--posterior": "other.safetensors"}, "not a VIPaint posterior"),
    ("demo", {"--mask": "halff", "--out": "out"}, "--mask 'halff' is neither a file nor one of half, box"),
    ("paint", {}, "invalid choice: 'paint'"),
    ("inpaint", INPAINT | {"--noise-std": "automatic"}, "--noise-std: invalid noise value"),
    ("inpaint", INPAINT | {"--method": "magic"}, "--method: invalid choice: 'magic'"),
    ("inpaint", INPAINT | {"--method": "ding", "--guidance": "dps"}, "setting is 'guidance'; choose one of steps"),
    ("inpaint", INPAINT | {"--method": "ding", "--set": "steps"}, "'steps' is not NAME=VALUE"),
    ("inpaint", INPAINT | {"--method": "ding", "--set": "times=1"}, "--set 'times': choose one of steps"),
    ("inpaint", INPAINT | {"--method": "ddnm", "--set": "noisy=1"}, "--set noisy: 1 is neither true nor false"),
    ("inpaint", INPAINT | {"--set": "batch_size=2"}, "--set batch_size: the setting has an option of its own"),
    ("inpaint", INPAINT | {"--degrees": "3"}, "--degrees is a setting of --likelihood student-t"),
    ("inpaint", INPAINT | {"--method": "repaint", "--likelihood": "student-t"}, "takes noise as Gaussian"),
    ("inpaint", INPAINT | {"--feather": "-1"}, "--feather: -1 is not between"),
    ("deblur", DEBLUR | {"--std": "0"}, "--std: 0 is not positive"),
    ("deblur", DEBLUR | {"--angle": "10"}, "--angle is a setting of --blur motion: give both or none"),
    ("deblur", DEBLUR | {"--kernel-size": "4"}, "kernel_size is 4; it must be odd"),
    ("deblur", DEBLUR | {"--kernel-size": "99"}, "kernel is 99x99, larger than the picture"),
    ("deblur", DEBLUR | {"--kernel": "scene.png"}, "--kernel and --blur are given: leave out one"),
    ("deblur", {"--image": "scene.png", "--out": "out", "--kernel": "black.png"}, "kernel is"),
    ("deblur", {"--image": "scene.png", "--out": "out", "--kernel": "absent.png"}, "absent.png"),
    ("upscale", UPSCALE | {"--factor": "1"}, "--factor: 1 is not between 2 and 16"),
    ("upscale", UPSCALE | {"--truth": "scene.png"}, "--truth is 64x64 and the picture 256x256"),
    ("fit", {"--image": "scene.png", "--posterior": "f.safetensors"}, "the degradation is missing: give --mask"),
    ("degrade", {"--image": "scene.png", "--out": "out"}, "the degradation is missing: give --mask"),
    ("degrade", {"--image": "wide.png", "--factor": "3", "--out": "out"}, "which the factor 3 does not divide"),
    ("compare", {"scene.png": "small.png", "--truth": "scene.png"}, "'small.png' is 32x32 and 'scene.png' 64x64"),
    ("compare", {"scene.png": "scene.png"}, "there is nothing to compare with: give --truth"),
    ("compare", {"full": "scene.png", "--truth": "scene.png"}, "'full' has no sample_*.png"),
]


@pytest.mark.parametrize(("command", "options", "message"), CASES, ids=[ascii(f"{c}-{m[:30]}") for c, _, m in CASES])
def test_the_error_is_one_line_that_names_the_input(command, options, message, files, no_network, monkeypatch, capsys):
    status, lines = run(files, [command, *sum(options.items(), ())], monkeypatch, capsys)
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith("vipaint: error: ")
    assert message in lines[0]


@pytest.fixture
def fitted(files, monkeypatch):
    """The arguments to sample from a fit, in the folder of the files."""
    monkeypatch.chdir(files)
    arguments = ["--image", "scene.png", "--mask", "mask.png", "--white", "known"]
    arguments += ["--prior", "prior.safetensors", "--noise-std", "0.1"]
    assert main(["fit", *arguments, "--posterior", "fit.safetensors"]) == 0
    return ["sample", *arguments, "--posterior", "fit.safetensors", "--out", "out"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--image", "other.png"], "observation is not the one of the fit"),
        (["--white", "fill"], "observation is not the one of the fit"),
        (["--prior", "second.safetensors"], "fitted for prior"),
        (["--posterior", "damaged.safetensors"], "fitted for latent_shape"),
    ],
)
def test_a_posterior_of_another_observation_or_model_is_refused(change, message, files, fitted, monkeypatch, capsys):
    save_image(files / "other.png", scene().flip(1))
    save_embedded(files / "second.safetensors", seed=9)
    damaged = HierarchicalPosterior.load(files / "fit.safetensors")
    damaged.metadata["latent_shape"] = "[4, 8, 8]"
    damaged.save(files / "damaged.safetensors")
    capsys.readouterr()
    status, lines = run(files, [*fitted, *change], monkeypatch, capsys)
    assert (status, len(lines)) == (2, 1)
    assert message in lines[0]


@pytest.mark.parametrize("stage", ["fit_posterior", "sample_posterior", "results"])
@pytest.mark.parametrize(
    ("failure", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "nothing was written"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 2, "lower --batch-size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "--checkpointing"),
        (MemoryError(), 2, "out of memory"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_run_that_stops_leaves_nothing(stage, failure, status, message, files, monkeypatch, capsys):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(cli_commands if hasattr(cli_commands, stage) else restoration, stage, fail)
    arguments = ["inpaint", *sum(INPAINT.items(), ()), "--prior", "prior.safetensors"]
    got, lines = run(files, arguments, monkeypatch, capsys)
    assert (got, len(lines)) == (status, 1)
    assert message in lines[0]


def test_an_interrupt_while_writing_leaves_nothing(files, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(HierarchicalPosterior, "serialised", interrupt)
    arguments = ["inpaint", *sum(INPAINT.items(), ()), "--prior", "prior.safetensors"]
    assert run(files, arguments, monkeypatch, capsys)[0] == 130


@pytest.mark.parametrize("raises", [False, True])
def test_a_run_that_diverges_is_an_error_and_writes_nothing(raises, files, monkeypatch, capsys):
    def diverge(*_, **__):
        if raises:
            raise torch.linalg.LinAlgError("linalg.eigh: failed to converge")
        return SampleResult(torch.zeros(1), torch.full((2, 3, 64, 64), torch.nan), Evaluations())

    monkeypatch.setattr(restoration, "sample_posterior", diverge)
    arguments = ["inpaint", *sum(INPAINT.items(), ()), "--prior", "prior.safetensors"]
    status, lines = run(files, arguments, monkeypatch, capsys)
    assert (status, len(lines)) == (2, 1)
    assert "diverged" in lines[0]


def test_a_program_error_is_not_hidden(files, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.chdir(files)
    monkeypatch.setattr(cli_commands, "fit_posterior", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["inpaint", *sum(INPAINT.items(), ()), "--prior", "prior.safetensors"])


@pytest.mark.parametrize("option", ["--device", "--image", "--prompt", "--prior"])
def test_two_dashes_end_in_one_line(option, capfd):
    """Some versions of argparse take them for no value, others for a text."""
    try:
        status = main(["fit", "--image", "a.png", "--mask", "b.png", "--posterior", "c.safetensors", f"{option}=--"])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert capfd.readouterr().err.startswith("vipaint: error: ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name")
@pytest.mark.parametrize("option", ["--image", "--mask", "--truth", "--prior", "--out"])
def test_a_pipe_is_refused_and_not_waited_for(option, files, tmp_path, capfd):
    os.mkfifo(tmp_path / "pipe")
    given = {
        "--image": files / "scene.png",
        "--mask": files / "mask.png",
        "--white": "known",
        "--out": tmp_path / "out",
    }
    arguments = [str(word) for pair in (given | {option: tmp_path / "pipe"}).items() for word in pair]
    assert main(["inpaint", *arguments, "--preset", "fast"]) == 2
    assert "/pipe" in capfd.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name")
@pytest.mark.parametrize("command", ["fit", "sample"])
def test_a_pipe_is_no_posterior(command, files, tmp_path, capfd):
    os.mkfifo(tmp_path / "pipe")
    given = {"--image": files / "scene.png", "--mask": files / "mask.png", "--posterior": tmp_path / "pipe"}
    if command == "sample":
        given["--out"] = tmp_path / "out"
    arguments = [str(word) for pair in given.items() for word in pair]
    assert main([command, *arguments, "--overwrite"]) == 2
    assert "/pipe" in capfd.readouterr().err
