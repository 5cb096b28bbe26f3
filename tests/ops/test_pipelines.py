"""Pipelines of diffusers on disk: what loads, and what is refused."""

import json
import math
import shutil
import socket

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler, LDMPipeline
from safetensors.torch import load_file, save_file

from tests.ops.conftest import tiny_networks
from tests.ops.test_diffusers_prior import TIMES, latents, make, text_unet
from tests.ops.tiny_pipelines import clip
from vipaint_ops.diffusion.schedule import NoiseSchedule
from vipaint_ops.errors import InputError
from vipaint_ops.priors.diffusers import from_pipeline


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("attempted a download")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An unconditional pipeline on disk."""
    path = tmp_path_factory.mktemp("pipeline")
    denoiser, autoencoder = tiny_networks()
    scheduler = DDPMScheduler(beta_schedule="linear", prediction_type="v_prediction")
    LDMPipeline(vqvae=autoencoder, unet=denoiser, scheduler=scheduler).save_pretrained(path)
    return path


def test_a_folder_gives_the_prior_of_its_parts(folder, offline):
    prior = from_pipeline(folder)
    expected = make("v_prediction", NoiseSchedule.vp(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)))
    z = latents()
    torch.testing.assert_close(prior.denoise(z, TIMES), expected.denoise(z, TIMES), rtol=1e-4, atol=1e-5)
    assert prior.identity == expected.identity
    with pytest.raises(InputError, match="takes no text"):
        from_pipeline(folder, prompt="a house")


def test_a_folder_with_half_precision_weights_only(folder, tmp_path, offline):
    DiffusionPipeline = diffusers.DiffusionPipeline
    DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float16).save_pretrained(tmp_path, variant="fp16")
    assert from_pipeline(tmp_path).identity == from_pipeline(folder).identity


def test_text_pipelines_encode_their_prompts(tmp_path, offline):
    path = save_text_pipeline(tmp_path)
    house, tree = (from_pipeline(path, prompt=prompt) for prompt in ("a house", "a tree"))
    assert house.identity != tree.identity
    empty = from_pipeline(path)
    plain, guided = empty.denoise(latents(), TIMES), from_pipeline(path, prompt="a house", cfg=4.0)
    expected = plain + 4 * (house.denoise(latents(), TIMES) - plain)
    torch.testing.assert_close(guided.denoise(latents(), TIMES), expected, rtol=1e-3, atol=1e-4)
    assert (house.denoise(latents(), TIMES) - tree.denoise(latents(), TIMES)).abs().max() > 1e-6


def save_text_pipeline(path):
    """A Stable Diffusion pipeline with a text encoder of a few hundred weights."""
    torch.manual_seed(2)
    tokenizer, encoder = clip()
    save_stable_diffusion(path / "pipeline", text_unet(), tokenizer=tokenizer, text_encoder=encoder)
    return path / "pipeline"


def save_stable_diffusion(path, unet, **text_parts):
    pipeline = diffusers.StableDiffusionPipeline(
        vae=tiny_networks()[1],
        unet=unet,
        scheduler=DDPMScheduler(beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **text_parts,
    )
    pipeline.save_pretrained(path)


def test_paths_that_are_not_pipelines_are_refused(folder, tmp_path, offline):
    with pytest.raises(InputError, match="does not exist"):
        from_pipeline(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"model_index\.json"):
        from_pipeline(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": ["own_code", "Pipeline"]}))
    with pytest.raises(InputError, match="of its own"):
        from_pipeline(tmp_path)
    with pytest.raises(InputError, match="neither a folder"):
        from_pipeline(folder / "model_index.json")


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    return save_text_pipeline(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory):
    """A Stable Diffusion pipeline whose denoiser takes no text, saved without text parts."""
    path = tmp_path_factory.mktemp("plain")
    unet = text_unet(
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, mid_block_type="UNetMidBlock2D"
    )
    save_stable_diffusion(path, unet, tokenizer=None, text_encoder=None)
    return path


def edited(folder, target, file, **changes):
    """A copy of a pipeline folder with entries of one JSON file replaced; those that become None are left out."""
    shutil.copytree(folder, target)
    content = json.loads((target / file).read_text()) | changes
    (target / file).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return target


def reweighted(folder, target, file, change):
    """A copy of a pipeline folder with the tensors of one file changed in place by ``change``."""
    shutil.copytree(folder, target)
    tensors = load_file(target / file)
    change(tensors)
    save_file(tensors, target / file)
    return target


@pytest.mark.parametrize("form", ["listed as absent", "not listed", "listed, without folders"])
def test_a_model_that_takes_no_text_needs_no_text_parts(form, plain_folder, tmp_path, offline):
    changes = {
        "listed as absent": {},
        "not listed": {"tokenizer": None, "text_encoder": None},
        "listed, without folders": {
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "text_encoder": ["transformers", "CLIPTextModel"],
        },
    }
    prior = from_pipeline(edited(plain_folder, tmp_path / "copy", "model_index.json", **changes[form]))
    z = latents()
    alpha, sigma = (v.view(-1, 1, 1, 1).float() for v in (prior.schedule.alpha(TIMES), prior.schedule.sigma(TIMES)))
    unet = diffusers.UNet2DConditionModel.from_pretrained(plain_folder / "unet")
    noise = unet(z, timestep=999 * TIMES, encoder_hidden_states=None).sample
    torch.testing.assert_close(prior.denoise(z, TIMES), (z - sigma * noise) / alpha, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="takes no text"):
        from_pipeline(plain_folder, prompt="a house")


@pytest.mark.parametrize("form", ["removed", "not listed", "listed as absent"])
@pytest.mark.parametrize("parts", [("tokenizer",), ("text_encoder",), ("text_encoder", "tokenizer")])
def test_a_model_that_takes_text_names_the_parts_it_lacks(parts, form, text_folder, tmp_path, offline):
    absent = {part: [None, None] for part in parts}
    values = {"removed": {}, "not listed": dict.fromkeys(parts), "listed as absent": absent}
    path = edited(text_folder, tmp_path / "copy", "model_index.json", **values[form])
    for part in parts:
        shutil.rmtree(path / part)
    with pytest.raises(InputError, match=f"copy': the model has no {', '.join(parts)}, which it needs even without"):
        from_pipeline(path)


WEIGHTS = "diffusion_pytorch_model.safetensors"

DAMAGED = {
    "no index": (lambda d: (d / "model_index.json").unlink(), r"model_index\.json is missing"),
    **{
        f"no {part}": (lambda d, part=part: shutil.rmtree(d / part), f"no folder .*{part}")
        for part in ("unet", "vae", "scheduler")
    },
    **{
        f"no configuration of {part}": (lambda d, file=file: (d / file).unlink(), "cannot be loaded")
        for part, file in {
            "unet": "unet/config.json",
            "vae": "vae/config.json",
            "scheduler": "scheduler/scheduler_config.json",
        }.items()
    },
    **{
        f"no weights of {part}": (lambda d, file=file: (d / file).unlink(), "cannot be loaded")
        for part, file in {
            "unet": f"unet/{WEIGHTS}",
            "vae": f"vae/{WEIGHTS}",
            "text_encoder": "text_encoder/model.safetensors",
        }.items()
    },
    "no vocabulary": (
        lambda d: [file.unlink() for file in (d / "tokenizer").iterdir()],
        "copy'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_folder_with_something_removed_is_refused_by_name(damage, text_folder, tmp_path, offline):
    remove, message = DAMAGED[damage]
    path = tmp_path / "copy"
    shutil.copytree(text_folder, path)
    remove(path)
    with pytest.raises(InputError, match=message) as error:
        from_pipeline(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("model_index.json", {"_class_name": "UnheardOfPipeline"}, "UnheardOfPipeline of diffusers, which is not"),
        ("model_index.json", {"_class_name": "AutoencoderKL"}, "no pipeline"),
        ("model_index.json", {"unet": ["diffusers", "UnheardOfModel"]}, "UnheardOfModel of diffusers, which is not"),
        ("model_index.json", {"unet": ["os", "system"]}, "system of os"),
        ("model_index.json", {"vae": ["diffusers", "UNet2DModel"]}, "copy"),
        ("model_index.json", {"text_encoder": ["transformers", "UnheardOfEncoder"]}, "UnheardOfEncoder of transf"),
        ("model_index.json", {"scheduler": ["diffusers", "UnheardOfScheduler"]}, "cannot be loaded"),
        ("unet/config.json", {"block_out_channels": [16, 16]}, "copy"),
        ("unet/config.json", {"cross_attention_dim": 8}, "copy"),
        ("unet/config.json", {"layers_per_block": 2}, "lacks .* weights of UNet2DConditionModel"),
        ("vae/config.json", {"latent_channels": 8}, "copy"),
        ("vae/config.json", {"layers_per_block": 2}, "lacks .* weights of AutoencoderKL"),
        ("text_encoder/config.json", {"num_hidden_layers": 2}, "lacks .* weights of CLIPTextModel"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "unheard of"}, "cannot be loaded"),
        ("scheduler/scheduler_config.json", {"prediction_type": "score"}, "prediction_type is 'score'"),
    ],
)
def test_a_folder_of_another_configuration_is_refused_by_name(file, changes, message, text_folder, tmp_path, offline):
    path = edited(text_folder, tmp_path / "copy", file, **changes)
    with pytest.raises(InputError, match=message) as error:
        from_pipeline(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("damage", ["missing", "other shape", "NaN", "infinite"])
def test_a_folder_with_broken_weights_is_refused_by_name(part, damage, text_folder, tmp_path, offline):
    def change(tensors):
        name = min(k for k, v in tensors.items() if v.ndim > 1)
        if damage == "missing":
            del tensors[name]
        elif damage == "other shape":
            tensors[name] = torch.zeros(3, *tensors[name].shape[1:])
        else:
            tensors[name].fill_(math.nan if damage == "NaN" else math.inf)

    file = "model.safetensors" if part == "text_encoder" else WEIGHTS
    path = reweighted(text_folder, tmp_path / "copy", f"{part}/{file}", change)
    message = {"missing": "lacks 1 weights", "other shape": "cannot be loaded"}.get(damage, "NaN or infinite")
    with pytest.raises(InputError, match=message) as error:
        from_pipeline(path)
    assert str(path) in str(error.value)


def test_a_single_file_without_its_configuration_is_refused_and_nothing_is_downloaded(tmp_path, offline):
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3)}, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"not on this machine.*--prior-config"):
        from_pipeline(tmp_path / "m.safetensors")


def test_a_corrupt_or_hostile_file_is_refused_without_running_it(text_folder, tmp_path, offline):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"state_dict": Hostile()}, tmp_path / "hostile.ckpt")
    (tmp_path / "corrupt.safetensors").write_bytes(b"\xff" * 64)
    for name in ("hostile.ckpt", "corrupt.safetensors"):
        for config in (None, text_folder):
            with pytest.raises(InputError, match="cannot be loaded"):
                from_pipeline(tmp_path / name, config=config)
    assert not (tmp_path / "executed").exists()


def test_a_pipeline_without_a_form_of_one_file_is_refused(folder, tmp_path, offline):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="LDMPipeline has no form of a single file: give a diffusers folder"):
        from_pipeline(tmp_path / "model.safetensors", config=folder)
