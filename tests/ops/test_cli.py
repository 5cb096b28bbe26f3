"""The console command from its arguments to its files, with a tiny random model."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, LDMPipeline
from PIL import Image, ImageOps
from safetensors import safe_open

from tests.ops.conftest import SmallFit, scene, tiny_networks
from vipaint_ops import PRESETS, FitConfig, RefineConfig
from vipaint_ops.cli import commands as cli_commands
from vipaint_ops.cli.main import main
from vipaint_ops.cli.parser import build_parser
from vipaint_ops.evaluation.metrics import psnr
from vipaint_ops.images.pictures import load_image, save_image
from vipaint_ops.inference.corrections import DPS
from vipaint_ops.priors import embedded
from vipaint_ops.restoration import sampling_settings

FAST = ["--iterations", "2", "--device", "cpu"]
QUICK = ["--steps", "2", "--samples", "3", "--device", "cpu"]
SPREAD = {f"samples_{name}.png" for name in ("mean", "spread", "different")}
OUTPUTS = {"sheet.png", "fit.png", "keypoints.png", "posterior.safetensors", "metrics.json", *SPREAD}


@pytest.fixture(scope="module", autouse=True)
def small_fits():
    with pytest.MonkeyPatch.context() as patch:
        small = PRESETS["balanced"]._replace(fit=SmallFit())
        patch.setattr(cli_commands, "PRESETS", PRESETS | {"balanced": small})
        yield


def draw_pictures(folder, height=64, width=64):
    """A scene, and a mask that hides its right half."""
    save_image(folder / "scene.png", scene(height, width))
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[:, width // 2 :] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return ["--image", str(folder / "scene.png"), "--mask", str(folder / "mask.png"), "--white", "fill"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def model(embedded_file):
    return ["--prior", str(embedded_file)]


@pytest.fixture(scope="module")
def finished(pictures, model, tmp_path_factory):
    """The folder of one complete run."""
    out = tmp_path_factory.mktemp("runs") / "new" / "folder"
    assert main(["inpaint", *pictures, *model, *FAST, *QUICK, "--truth", pictures[1], "--out", str(out)]) == 0
    return out


def samples(out):
    return torch.cat([load_image(path) for path in sorted(out.glob("sample_*.png"))])


def test_a_run_leaves_its_files_and_nothing_else(finished):
    assert {path.name for path in finished.iterdir()} == OUTPUTS | {f"sample_0{i}.png" for i in range(3)}
    assert [path.name for path in finished.parent.iterdir()] == ["folder"]
    for name in ("sheet", "fit", "keypoints"):
        assert np.asarray(Image.open(finished / f"{name}.png")).std() > 1
    with safe_open(finished / "posterior.safetensors", "pt") as file:
        assert file.metadata()["format"] == "vipaint-posterior-1"


def test_known_pixels_come_back_exactly(finished, pictures):
    truth = load_image(pictures[1])
    assert (samples(finished)[..., :32] == truth[..., :32]).all()
    assert (samples(finished)[..., 32:] - truth[..., 32:]).abs().mean() > 0.01


def test_metrics_are_those_of_the_written_pictures(finished, pictures):
    report = json.loads((finished / "metrics.json").read_text())
    images, truth = samples(finished), load_image(pictures[1])
    expected = psnr(images, truth).tolist()
    assert report["metrics"]["psnr_truth_db"] == pytest.approx(expected, abs=0.1)
    hole = report["metrics"]["psnr_truth_hole_db"]
    assert hole == pytest.approx([value - 10 * np.log10(2) for value in expected], abs=0.1)
    assert report["metrics"]["diversity"] == pytest.approx(
        torch.pdist(images[..., 32:].flatten(1)).mean().item() / (3 * 64 * 32) ** 0.5, rel=0.1
    )
    assert len(report["metrics"]["consistency"]) == 3
    assert report["evaluations"]["sample"]["denoiser_forward"] >= 3 * 2
    assert report["evaluations"]["fit"]["denoiser_backward"] > 0
    assert set(report["seconds"]) == {"fit", "sample"}
    assert (report["seed"], report["noise_std"], report["config"]["fit"]["iterations"]) == (0, 0.02, 2)
    assert report["versions"]["torch"].startswith(torch.__version__.partition("+")[0])


def test_fit_and_then_sample_is_inpaint(finished, pictures, model, tmp_path):
    saved = tmp_path / "fits" / "fit.safetensors"
    assert main(["fit", *pictures, *model, *FAST, "--posterior", str(saved)]) == 0
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert main(["sample", *pictures, *model, *QUICK, "--posterior", str(saved), "--out", str(tmp_path / "o")]) == 0
    assert torch.equal(samples(tmp_path / "o"), samples(finished))


def test_a_sample_is_the_same_in_any_batch_and_differs_with_the_seed(finished, pictures, model, tmp_path):
    posterior = ["--posterior", str(finished / "posterior.safetensors"), "--steps", "2", "--device", "cpu"]
    for name, extra in (("a", ["--batch-size", "1", "--samples", "2"]), ("b", ["--seed", "1", "--samples", "2"])):
        arguments = ["sample", *pictures, *model, *posterior, *extra, "--out", str(tmp_path / name)]
        assert main(arguments) == 0
    reference = samples(finished)[:2]
    assert (samples(tmp_path / "a") - reference).abs().max() <= 2 / 127.5
    assert (samples(tmp_path / "b") - reference).abs().max() > 0.05


def test_overwrite_replaces_the_whole_earlier_run_and_nothing_else(finished, pictures, model, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "notes.txt").write_text("old")
    arguments = ["sample", *pictures, *model, *QUICK, "--posterior", str(finished / "posterior.safetensors")]
    arguments += ["--out", str(out), "--overwrite", "--samples", "2"]
    assert main([*arguments, "--no-composite"]) == 0
    assert {path.name for path in out.iterdir()} == {*OUTPUTS, "notes.txt", "sample_00.png", "sample_01.png"}
    assert (out / "notes.txt").read_text() == "old"
    assert (samples(out) - samples(finished)[:2])[..., :32].abs().max() > 0.01
    files = json.loads((out / "metrics.json").read_text())["files"]
    assert files == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.iterdir()
        if path.name not in ("notes.txt", "metrics.json")
    }


def test_other_sizes_are_cut_to_the_embedded_models_square_with_a_notice(model, tmp_path, capsys):
    pictures = draw_pictures(tmp_path, 80, 160)
    assert main(["inpaint", *pictures, *model, *FAST, *QUICK, "--out", str(tmp_path / "out")]) == 0
    notices = capsys.readouterr().err.splitlines()
    assert len(notices) == 1
    assert "notice: the embedded model paints 64x64 pixels: the central square of the 80x160 picture" in notices[0]
    assert samples(tmp_path / "out").shape == (3, 3, 64, 64)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_a_pipeline_folder_paints_pictures_of_any_size(zero_snr, tmp_path):
    denoiser, autoencoder = tiny_networks()
    scheduler = DDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=zero_snr)
    LDMPipeline(vqvae=autoencoder, unet=denoiser, scheduler=scheduler).save_pretrained(tmp_path / "model")
    pictures, out = draw_pictures(tmp_path, 26, 45), tmp_path / "out"
    assert main(["inpaint", *pictures, *FAST, *QUICK, "--prior", str(tmp_path / "model"), "--out", str(out)]) == 0
    assert samples(out).shape == (3, 3, 26, 45)
    assert (samples(out)[..., :22] == load_image(pictures[1])[..., :22]).all()


def test_a_mask_may_carry_its_hole_in_its_opacity(finished, pictures, model, tmp_path, capsys):
    photo = Image.open(pictures[1])
    photo.putalpha(ImageOps.invert(Image.open(pictures[3])))
    photo.save(tmp_path / "masked.png")
    masked = [*pictures[:3], str(tmp_path / "masked.png"), *pictures[4:]]
    assert main(["inpaint", *masked, *model, *FAST, *QUICK, "--out", str(tmp_path / "out")]) == 0
    (notice,) = capsys.readouterr().err.splitlines()
    assert notice.startswith("vipaint: notice: mask")
    assert notice.endswith("masked.png': its opacity is taken, not its colours")
    assert torch.equal(samples(tmp_path / "out"), samples(finished))


@pytest.mark.parametrize("mask", ["half", "FILE"])
def test_the_demo_compares_with_the_truth(mask, embedded_file, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "EMBEDDED_PRIOR", embedded_file)
    monkeypatch.setattr(cli_commands, "DEMO_SCENE", pictures[1])
    mask = pictures[3] if mask == "FILE" else mask
    assert main(["demo", *FAST, *QUICK, "--mask", mask, *pictures[4:], "--out", str(tmp_path)]) == 0
    assert "psnr_truth_db" in json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert (samples(tmp_path)[..., :32] == load_image(pictures[1])[..., :32]).all()


def test_sampling_takes_the_noise_level_of_the_fit(pictures, model, tmp_path):
    saved = str(tmp_path / "fit.safetensors")
    assert main(["fit", *pictures, *model, "--iterations", "0", "--noise-std", "0.3", "--posterior", saved]) == 0
    assert main(["sample", *pictures, *model, *QUICK, "--posterior", saved, "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["noise_std"] == 0.3
    assert not (tmp_path / "out" / "fit.png").exists()


def refinement(options):
    preset, settings = options.preset.replace("-", " "), cli_commands._settings(options)
    return sampling_settings(options.method, preset, settings)


def test_options_reach_the_configurations():
    required = ["inpaint", "--image", "a", "--mask", "b", "--out", "c"]
    options = build_parser().parse_args(
        [*required, "--keypoints", "0.6,0.4", "--checkpointing", "--steps", "7", "--guidance", "dps"]
    )
    fit_config, refine_config = cli_commands._fit_config(options), refinement(options)
    assert (fit_config.keypoints, fit_config.checkpointing) == ((0.6, 0.4), True)
    assert (refine_config.steps, refine_config.guidance) == (7, DPS())
    options = build_parser().parse_args([*required, "--preset", "published-v1"])
    assert cli_commands._fit_config(options) == FitConfig.published_v1()
    assert refinement(options) == RefineConfig.published_v1()


@pytest.mark.parametrize("command", [[], *([name] for name in cli_commands.COMMANDS)])
def test_help_has_examples_and_defaults(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "None" not in text
    assert "examples:" in text
    if command and command[0] not in ("compare", "methods", "info", "batch"):
        assert "(default: 0)" in text


def test_the_module_runs_as_a_command():
    command = [sys.executable, "-m", "vipaint_ops.cli", "inpaint", "--samples", "none"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("vipaint: error: argument --samples: invalid integer value: 'none'")
    assert len(done.stderr.splitlines()) == 1
