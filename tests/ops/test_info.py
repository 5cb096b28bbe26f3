"""``vipaint info`` and ``vipaint methods``: the model by its configuration, and the costs of the benchmark."""

import json
from pathlib import Path

import diffusers
import pytest
import torch

from benchmarks import architectures, full_size
from tests.ops import tiny_pipelines
from vipaint_ops import METHODS, PRESETS
from vipaint_ops.cli.main import main
from vipaint_ops.evaluation.gradients import gradient_error
from vipaint_ops.priors.diffusers import from_loaded
from vipaint_ops.priors.inspection import inspected

FAMILIES = ["sd15", "sdxl", "sd3", "flux", "qwen_image"]
FIGURES = json.loads((Path(full_size.__file__).parent / "results" / "full_size.json").read_text())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved tiny pipeline of each family."""
    root = tmp_path_factory.mktemp("families")
    for name in FAMILIES:
        getattr(tiny_pipelines, name)().save_pretrained(root / name)
    return root


def printed(capsys, *arguments):
    assert main(["info", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def rows_of(text):
    """The figures of the table by the name of their line."""
    lines = [line.split() for line in text.splitlines() if line.startswith(("plain", "--"))]
    return {" ".join(line[:-3]): [float(cell.replace(",", "")) for cell in line[-3:]] for line in lines}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_checkpoint_is_what_its_pipeline_is(name, folders, capsys):
    prior = from_loaded(getattr(tiny_pipelines, name)())
    found = inspected(folders / name)
    shape = (found.denoiser.channels, *found.denoiser.side)
    assert (shape, found.picture_multiple, found.dtype) == (prior.latent_shape, prior.picture_multiple, torch.float32)
    text = printed(capsys, folders / name, "--size", "17x30", "--samples", "2", "--method", "ddnm")
    unit = prior.picture_factor
    parameters = sum(weight.numel() for weight in prior._denoiser.network.parameters())
    for part in (
        type(prior._denoiser.network).__name__,
        f"{parameters / 1e6:,.1f} million",
        f"4 latent channels, one cell for {unit}x{unit} pixels",
        "weights      float32",
        f"multiples of {prior.picture_multiple}",
        "text         needed",
        "2 samples of 17x30 pixels",
    ):
        assert part in text
    assert set(rows_of(text)) == {"plain, 28 steps", "--method ddnm"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_usual_prompt_has_the_shapes_of_an_encoded_one(name, folders):
    prior = from_loaded(getattr(tiny_pipelines, name)(), "a house")
    usual = inspected(folders / name).denoiser.text_shapes()
    encoded = {key: tuple(value.shape) for key, value in prior._conditioning[0].items()}
    assert {key: shape[2:] or shape for key, shape in usual.items()} == {
        key: shape[2:] or shape for key, shape in encoded.items()
    }


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory):
    """The configuration of Stable Diffusion 1.5, without weights."""
    folder, (sd15, *_) = tmp_path_factory.mktemp("configurations"), architectures.ARCHITECTURES
    sd15.denoiser.build("meta").save_config(folder / "unet")
    sd15.decoder.build("meta").save_config(folder / "vae")
    diffusers.DDIMScheduler(beta_schedule="scaled_linear").save_config(folder / "scheduler")
    names = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "DDIMScheduler"}
    parts = {part: ["diffusers", name] for part, name in names.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"} | parts))
    return folder


def test_costs_of_stable_diffusion_are_those_of_the_benchmark(stable_diffusion, capsys):
    text = printed(capsys, stable_diffusion, "--dtype", "bfloat16")
    found = rows_of(text)
    expected = {f"--preset {name.replace(' ', '-')}": preset.cost[0] for name, preset in PRESETS.items()}
    expected |= {f"--method {name}": method.cost[0] for name, method in METHODS.items()}
    assert {name: row[1] for name, row in found.items()} == {"plain, 28 steps": 1.0} | expected
    assert found["plain, 28 steps"][0] == 190
    weights = FIGURES["SD1.5 512, weights"]["figures"]
    decoder = full_size.Row(*FIGURES["KL decoder, 4 channels, (1, 4, 64, 64)"]["figures"])
    denoiser = full_size.Row(*FIGURES["SD1.5 UNet, (1, 4, 64, 64)"]["figures"])
    balanced, exact = found["--preset balanced"][2], found["--method dps"][2]
    assert balanced == pytest.approx((weights + 4 * decoder.peak) / 2**30, rel=0.01)
    assert exact == pytest.approx((weights + 8 * denoiser.kept + 4 * decoder.peak) / 2**30, rel=0.01)


def test_more_samples_share_one_fit(folders, capsys):
    four, eight = (
        rows_of(printed(capsys, folders / "sd15", "--size", "32x32", "--samples", n, "--preset", "fast"))
        for n in (4, 8)
    )
    assert eight["plain, 28 steps"][0] == pytest.approx(2 * four["plain, 28 steps"][0], rel=0.01)
    assert four["--preset fast"][0] < eight["--preset fast"][0] < 2 * four["--preset fast"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "'nothing' does not exist"),
        (["{sd15}/model_index.json"], "neither a folder"),
        (["{sd15}/unet"], "not a diffusers folder"),
        (["--size", "512"], "'512' is not HEIGHTxWIDTH"),
        (["--size", "0x64"], "'0x64' is not HEIGHTxWIDTH"),
        (["--samples", "0"], "not between 1"),
        (["--preset", "best"], "invalid choice: 'best'"),
        (["--method", "best"], "invalid choice: 'best'"),
        (["--preset", "fast", "--method", "dps"], "not allowed with"),
        (["--device", "abacus", "--check-gradients"], "'abacus' is not on this machine"),
        (["{sd3}", "--size", "64x4096"], "sides up to 40 pixels"),
    ],
)
def test_bad_values_end_in_one_line(arguments, message, folders, capsys):
    given = [argument.format(sd15=folders / "sd15", sd3=folders / "sd3") for argument in arguments]
    try:
        status = main(["info", *given])
    except SystemExit as error:
        status = error.code
    captured = capsys.readouterr()
    assert (status, len(captured.err.splitlines())) == (2, 1)
    assert message in captured.err


def test_a_damaged_configuration_is_named(folders, tmp_path, capsys):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{")
    (tmp_path / "model_index.json").write_text((folders / "sd15" / "model_index.json").read_text())
    assert main(["info", str(tmp_path)]) == 2
    assert f"{str(tmp_path)!r} cannot be read" in capsys.readouterr().err


def test_gradients_of_a_model_are_checked(embedded_file, capsys):
    text = printed(capsys, embedded_file, "--check-gradients", "--preset", "fast")
    assert "gradients    denoiser right (error 0.0%), decoder right (error 0.0%)" in text


def test_a_wrong_gradient_is_found():
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert gradient_error(lambda z: z.sin(), x) < 1e-3
    assert gradient_error(lambda z: z * z.detach().cos(), x) > 0.02
    assert gradient_error(lambda z: 0 * z, x) == 0
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient_error(lambda z: z.detach().sin(), x)


def test_methods_are_listed_with_their_costs(capsys):
    assert main(["methods"]) == 0
    lines = {line.partition("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    for name, preset in PRESETS.items():
        line = lines[f"--preset {name.replace(' ', '-')}"].split()
        assert tuple(map(float, line[-2:])) == preset.cost
    for name, method in METHODS.items():
        line = lines[f"--method {name}"]
        assert tuple(map(float, line.split()[-2:])) == method.cost
        assert method.source in line and method.observations in line
        assert ("none" in line) == (not method.rows.gradients)
