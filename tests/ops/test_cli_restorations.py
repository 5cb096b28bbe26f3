"""Commands beyond one masked picture: windows, blurs, small pictures, other methods, test cases and scores."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from tests.ops.conftest import SmallFit, scene
from vipaint_ops import PRESETS, Observation, load_embedded_prior, operators, restore
from vipaint_ops.cli import commands as cli_commands
from vipaint_ops.cli.main import main
from vipaint_ops.evaluation.spread import most_different, spread
from vipaint_ops.images.pictures import load_image, save_image

QUICK = ["--preset", "fast", "--iterations", "0", "--steps", "2", "--samples", "2", "--device", "cpu"]
DING = ["--method", "ding", "--steps", "2", "--samples", "2", "--device", "cpu"]


@pytest.fixture(scope="module", autouse=True)
def small_fits():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_commands, "PRESETS", PRESETS | {"fast": PRESETS["fast"]._replace(fit=SmallFit())})
        yield


@pytest.fixture(scope="module")
def model(embedded_file):
    return ["--prior", str(embedded_file)]


@pytest.fixture
def masked(tmp_path):
    """A picture of 64x64, and a mask whose right half is white."""
    return draw(tmp_path, 64, 64, [(slice(None), slice(32, None))])


def draw(folder, height, width, holes):
    save_image(folder / "scene.png", scene(height, width))
    mask = np.zeros((height, width), dtype=np.uint8)
    for hole in holes:
        mask[hole] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return ["--image", str(folder / "scene.png"), "--mask", str(folder / "mask.png"), "--white", "fill"]


def samples(out):
    return torch.cat([load_image(path) for path in sorted(out.glob("sample_*.png"))])


def record(out):
    return json.loads((out / "metrics.json").read_text())


def test_one_fit_sampled_in_parts_gives_the_samples_of_one_run(masked, model, tmp_path):
    fit = ["--preset", "fast", "--iterations", "0", "--device", "cpu", "--posterior", str(tmp_path / "f.safetensors")]
    assert main(["fit", *masked, *model, *fit]) == 0
    for name, first, count in (("whole", 0, 3), ("a", 0, 1), ("b", 1, 2)):
        drawn = ["--steps", "2", "--first", str(first), "--samples", str(count), "--batch-size", "1"]
        out = ["--out", str(tmp_path / name), "--preset", "fast", "--device", "cpu"]
        assert main(["sample", *masked, *model, *drawn, *out, "--posterior", str(tmp_path / "f.safetensors")]) == 0
    for part, names in (("a", ["sample_00.png"]), ("b", ["sample_01.png", "sample_02.png"])):
        assert sorted(path.name for path in (tmp_path / part).glob("sample_*.png")) == names
        for name in names:
            assert (tmp_path / part / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_command_is_one_call_of_python(masked, embedded_file, model, tmp_path):
    assert main(["inpaint", *masked, *model, *DING, "--seed", "4", "--no-composite", "--out", str(tmp_path / "o")]) == 0
    mask = (torch.arange(64) < 32).float().expand(1, 1, 64, 64)
    picture = load_image(masked[1])
    observation = Observation(mask * picture, operators.Inpainting(mask), 0.02)
    result = restore(load_embedded_prior(embedded_file), observation, 2, method="ding", seed=4, steps=2)
    assert (samples(tmp_path / "o") - result.images.clamp(-1, 1)).abs().max() <= 1.01 / 127.5
    assert record(tmp_path / "o")["config"]["ding"]["steps"] == 2
    assert not (tmp_path / "o" / "posterior.safetensors").exists()


def test_windows_restore_each_hole_and_leave_all_else_bit_for_bit(model, tmp_path):
    masked = draw(tmp_path, 160, 200, [(slice(10, 26), slice(10, 30)), (slice(130, 150), slice(170, 190))])
    assert main(["inpaint", *masked, *model, *QUICK, "--crop", "--out", str(tmp_path / "o")]) == 0
    found, picture = samples(tmp_path / "o"), load_image(masked[1])
    hole = torch.from_numpy(np.asarray(Image.open(masked[3])) > 0)
    assert found.shape == (2, 3, 160, 200)
    assert (found[..., ~hole] == picture[..., ~hole]).all()
    for rows, columns in ((slice(10, 26), slice(10, 30)), (slice(130, 150), slice(170, 190))):
        assert (found - picture)[..., rows, columns].abs().mean() > 0.01
    posteriors = sorted(map(str, (tmp_path / "o").glob("posterior_*.safetensors")))
    assert len(posteriors) == 2
    again = ["sample", *masked, *model, "--crop", "--preset", "fast", "--steps", "2", "--samples", "2"]
    again += ["--posterior", *posteriors, "--device", "cpu", "--out", str(tmp_path / "again")]
    assert main(again) == 0
    assert torch.equal(samples(tmp_path / "again"), found)


def test_a_picture_of_the_models_size_is_not_cropped(masked, model, tmp_path):
    for name, extra in (("plain", []), ("crop", ["--crop"])):
        assert main(["inpaint", *masked, *model, *DING, *extra, "--out", str(tmp_path / name)]) == 0
    assert torch.equal(samples(tmp_path / "plain"), samples(tmp_path / "crop"))


@pytest.mark.parametrize(
    ("degraded", "restored", "size"),
    [
        (["--blur", "motion", "--kernel-size", "7"], ["deblur", "--blur", "motion", "--kernel-size", "7"], 64),
        (["--blur", "gaussian", "--std", "1"], ["deblur", "--kernel", "case/degraded_kernel.png"], 64),
        (["--factor", "2", "--kind", "average"], ["upscale", "--factor", "2", "--kind", "average"], 64),
    ],
    ids=["motion", "kernel", "scale"],
)
def test_a_test_case_is_restored_by_its_own_degradation(degraded, restored, size, model, tmp_path, monkeypatch):
    """The truth fits the degraded picture to the noise; a restoration has the size of the truth."""
    monkeypatch.chdir(tmp_path)
    save_image("clean.png", scene())
    assert main(["degrade", "--image", "clean.png", *degraded, "--noise-std", "0.05", "--out", "case"]) == 0
    command, *options = restored
    options += ["--image", "case/degraded.png", "--noise-std", "0.05"]
    assert main([command, *options, *model, *QUICK, "--truth", "clean.png", "--out", "o"]) == 0
    assert samples(tmp_path / "o").shape == (2, 3, size, size)
    assert record(tmp_path / "o")["metrics"]["psnr_truth_db"][0] > 5
    assert main(["compare", "clean.png", *options, "--out", "scores"]) == 0
    assert record(tmp_path / "scores")["metrics"]["residual"][0] == pytest.approx(1, abs=0.1)


def test_a_masked_test_case_hides_what_the_mask_marks(masked, tmp_path):
    assert main(["degrade", *masked, "--out", str(tmp_path / "case")]) == 0
    assert (load_image(tmp_path / "case" / "degraded.png")[..., 32:].abs() < 0.01).all()
    written = np.asarray(Image.open(tmp_path / "case" / "degraded_mask.png"))[..., 0]
    assert (written == np.asarray(Image.open(masked[3]))).all()


def test_the_uncertainty_pictures_are_those_of_the_samples(masked, model, tmp_path):
    assert main(["inpaint", *masked, *model, *DING, "--samples", "3", "--out", str(tmp_path / "o")]) == 0
    found, report = samples(tmp_path / "o"), record(tmp_path / "o")["metrics"]
    assert (load_image(tmp_path / "o/samples_mean.png") - spread(found).mean).abs().max() <= 2.01 / 127.5
    heat = np.asarray(Image.open(tmp_path / "o/samples_spread.png")).astype(int)
    assert (heat[:, :32] == heat[0, 0]).all()
    assert heat[:, 32:].max() > heat[0, 0].max()
    assert report["most_different"] == [choice.sample for choice in most_different(found, 3)]
    assert np.argsort(report["consistency"]).tolist() == report["by_consistency"]


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_compare_prints_what_it_writes(shift, masked, tmp_path, capsys):
    picture = load_image(masked[1])
    restored = picture.clone()
    restored[..., 32:] = (restored[..., 32:] + shift).clamp(-1, 1)
    save_image(tmp_path / "restored.png", restored)
    arguments = [str(tmp_path / "restored.png"), "--truth", masked[1], *masked, "--out", str(tmp_path / "o")]
    assert main(["compare", *arguments]) == 0
    heading, row = capsys.readouterr().out.splitlines()[:2]
    metrics = record(tmp_path / "o")["metrics"]
    assert heading.split() == ["PSNR", "(dB)", "SSIM", "residual", "/", "noise", "seam"]
    shown = [float(word) for word in row.split()[1:]]
    expected = [metrics[name][0] for name in ("psnr_db", "ssim", "residual", "seam")]
    assert shown == pytest.approx([math.inf if value is None else value for value in expected], abs=0.01)
    assert metrics["residual"] == [0.0]
    assert (metrics["seam"][0] > 2) == (shift > 0)


def test_compare_never_replaces_the_pictures_it_reads(masked, model, tmp_path):
    assert main(["inpaint", *masked, *model, *DING, "--out", str(tmp_path / "o")]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "o").iterdir()}
    arguments = ["compare", str(tmp_path / "o"), "--truth", masked[1], "--out", str(tmp_path / "o"), "--overwrite"]
    assert main(arguments) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "o").iterdir()} == before


def test_white_is_painted_with_a_notice_until_it_is_said(masked, model, tmp_path, capsys):
    *unsaid, _, _ = masked
    assert main(["inpaint", *unsaid, *model, *DING, "--out", str(tmp_path / "default")]) == 0
    (notice,) = capsys.readouterr().err.splitlines()
    assert "white of the mask is painted, as in ComfyUI; in earlier versions it was known: --white known" in notice
    assert main(["inpaint", *masked, *model, *DING, "--out", str(tmp_path / "fill")]) == 0
    assert capsys.readouterr().err == ""
    assert main(["inpaint", *unsaid, "--invert-mask", *model, *DING, "--out", str(tmp_path / "invert")]) == 0
    assert "--invert-mask will go" in capsys.readouterr().err
    assert main(["inpaint", *unsaid, "--white", "known", *model, *DING, "--out", str(tmp_path / "known")]) == 0
    assert torch.equal(samples(tmp_path / "default"), samples(tmp_path / "fill"))
    assert torch.equal(samples(tmp_path / "invert"), samples(tmp_path / "fill"))
    assert (samples(tmp_path / "known") == load_image(masked[1]))[..., 32:].all()


def test_the_noise_is_estimated_with_the_model(masked, model, tmp_path, capsys):
    assert main(["inpaint", *masked, *model, *DING, "--noise-std", "auto", "--out", str(tmp_path / "o")]) == 0
    assert f"noise-std {record(tmp_path / 'o')['noise_std']:.3f}" in capsys.readouterr().out
