"""Every family of diffusers pipelines: the prior against the pipeline's own call."""

import shutil
import socket

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from tests.ops import tiny_pipelines
from vipaint_ops import InputError, Observation, operators, restore
from vipaint_ops.priors.diffusers import from_loaded, from_pipeline
from vipaint_ops.priors.networks import pack, unpack

FLOWS = {
    "flux": tiny_pipelines.flux,
    "flux without guidance": lambda: tiny_pipelines.flux(guidance_embeds=False, shift=1.0),
    "qwen-image": tiny_pipelines.qwen_image,
    "sd3": tiny_pipelines.sd3,
}
PACKED = list(FLOWS)[:3]
FAMILIES = {**FLOWS, "sd15": tiny_pipelines.sd15, "sdxl": tiny_pipelines.sdxl}
HEIGHT, WIDTH = 16, 24
HOUSE, TREES = "a house", "tall trees by a lake"


@pytest.fixture(scope="module")
def pipelines():
    """Made once: no test changes one."""
    made = {name: make() for name, make in FAMILIES.items()}
    for pipeline in made.values():
        pipeline.set_progress_bar_config(disable=True)
    return made


def latents(count=1, dtype=torch.float32, seed=0):
    return torch.randn(count, 4, HEIGHT // 2, WIDTH // 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def one_step(name, pipeline, z, cfg, output_type="latent", t=0.6):
    """The pipeline's own call with one step from time ``t`` to 0, whose result is the clean latent."""
    packed, guidance = name in PACKED, {"guidance_scale": cfg}
    if packed:
        guidance = {"true_cfg_scale": cfg, "negative_prompt": TREES if cfg > 1 else None}
    elif cfg > 1:
        guidance["negative_prompt"] = TREES
    step = {"sigmas": [t]} if name in FLOWS else {"timesteps": [round(999 * t)]}
    result = pipeline(
        HOUSE,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=1,
        latents=pack(z) if packed else z,
        output_type=output_type,
        **step,
        **guidance,
    ).images
    return unpack(result, HEIGHT // 4, WIDTH // 4) if packed and output_type == "latent" else result


def at(name, t):
    """The time of the prior for a step of the pipeline."""
    return torch.tensor([t if name in FLOWS else round(999 * t) / 999])


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_prediction_is_one_step_of_the_pipeline(name, cfg, pipelines):
    prior = from_loaded(pipelines[name], HOUSE, TREES if cfg > 1 else "", cfg).for_size(HEIGHT, WIDTH)
    z = latents()
    expected = one_step(name, pipelines[name], z, cfg)
    torch.testing.assert_close(prior.denoise(z, at(name, 0.6)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_picture_is_decoded_as_by_the_pipeline(name, pipelines):
    prior = from_loaded(pipelines[name], HOUSE).for_size(HEIGHT, WIDTH)
    z = latents()
    expected = one_step(name, pipelines[name], z, 1.0, "pt")
    decoded = prior.decode(prior.denoise(z, at(name, 0.6)))
    torch.testing.assert_close((decoded / 2 + 0.5).clamp(0, 1), expected, rtol=1e-4, atol=1e-5)


def test_latents_of_qwen_image_have_the_mean_and_variance_of_its_configuration(pipelines):
    pipeline, prior = pipelines["qwen-image"], from_loaded(pipelines["qwen-image"])
    picture = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) * 2 - 1
    raw = pipeline.vae.encode(picture[:, :, None]).latent_dist.mean[:, :, 0]
    mean, std = (torch.tensor(pipeline.vae.config[f"latents_{key}"]).view(1, 4, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(prior.encode(picture), (raw - mean) / std)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_sample_does_not_depend_on_its_batch(name, pipelines):
    prior = from_loaded(pipelines[name], HOUSE, TREES, 2.0).for_size(HEIGHT, WIDTH)
    z, times = latents(3), torch.tensor([0.2, 0.5, 0.9])
    together, condition = prior.denoise_with_condition(z, times)
    alone = torch.cat([prior.denoise(z[i : i + 1], times[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prior.denoise_condition(z, times), condition, rtol=1e-4, atol=1e-5)
    assert (together - condition).abs().max() > 1e-4


@pytest.mark.parametrize("name", PACKED)
def test_gradients_equal_finite_differences(name, pipelines):
    prior = from_loaded(pipelines[name], HOUSE, TREES, 2.0).for_size(HEIGHT, WIDTH)
    z, times = latents().requires_grad_(), torch.tensor([0.7])
    weights, direction = latents(seed=1), latents(seed=2)

    def value(x):
        return (weights * prior.denoise(x, times)).sum().double() + prior.decode(x).double().square().sum()

    (gradient,) = torch.autograd.grad(value(z), z)
    with torch.no_grad():
        difference = (value(z + 1e-2 * direction) - value(z - 1e-2 * direction)) / 2e-2
    assert (gradient.abs() > 0).all()
    torch.testing.assert_close((gradient * direction).sum().double(), difference, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_stays_inside(name):
    def prior(dtype):
        return from_loaded(FAMILIES[name]().to(dtype), HOUSE, TREES, 2.0).for_size(HEIGHT, WIDTH)

    z, times = latents().requires_grad_(), torch.tensor([0.7])
    half, full = prior(torch.bfloat16), prior(torch.float32)
    out = half.decode(half.denoise(z, times))
    (gradient,) = torch.autograd.grad(out.sum(), z)
    assert {out.dtype, gradient.dtype, half.dtype, half.encode(out).dtype} == {torch.float32}
    torch.testing.assert_close(half.denoise(z, times), full.denoise(z, times), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_folder_is_the_pipeline_in_memory(name, pipelines, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("attempted a download")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    pipelines[name].save_pretrained(tmp_path / "folder")
    prior, other = (from_pipeline(tmp_path / "folder", prompt, TREES, 2.0) for prompt in (HOUSE, "a cat"))
    loaded = from_loaded(pipelines[name], HOUSE, TREES, 2.0)
    assert prior.identity == loaded.identity != other.identity
    z, times = latents(), torch.tensor([0.5])
    torch.testing.assert_close(prior.denoise(z, times), loaded.denoise(z, times), rtol=1e-4, atol=1e-5)
    assert (prior.denoise(z, times) - other.denoise(z, times)).abs().max() > 1e-6
    encoder = "text_encoder_2" if name in ("sdxl", "sd3") or "flux" in name else "text_encoder"
    shutil.rmtree(tmp_path / "folder" / encoder)
    with pytest.raises(InputError, match=f"no {encoder}"):
        from_pipeline(tmp_path / "folder", HOUSE)


@pytest.mark.parametrize("name", ["flux", "sd3"])
def test_a_file_of_the_denoiser_alone_takes_the_rest_from_a_folder(name, pipelines, tmp_path):
    pipelines[name].save_pretrained(tmp_path / "folder")
    save_file(pipelines[name].transformer.state_dict(), tmp_path / "denoiser.safetensors")
    prior = from_pipeline(tmp_path / "denoiser.safetensors", HOUSE, config=tmp_path / "folder")
    assert prior.identity == from_loaded(pipelines[name], HOUSE).identity
    shutil.rmtree(tmp_path / "folder" / "vae")
    with pytest.raises(InputError, match="denoiser"):
        from_pipeline(tmp_path / "denoiser.safetensors", HOUSE, config=tmp_path / "folder")


@pytest.mark.parametrize(("name", "guidance"), [("flux", [3.5, 3.5]), ("flux without guidance", None)])
def test_a_distilled_flux_takes_the_guidance_of_its_pipeline(name, guidance, pipelines, monkeypatch):
    transformer, seen = pipelines[name].transformer, []
    forward = transformer.forward

    def spy(**arguments):
        seen.append(arguments.get("guidance"))
        return forward(**arguments)

    monkeypatch.setattr(transformer, "forward", spy)
    from_loaded(pipelines[name], HOUSE).denoise(latents(2), torch.tensor([0.5, 0.5]))
    assert [None if value is None else value.tolist() for value in seen] == [guidance]


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_a_schedule_that_depends_on_the_size_is_that_of_the_scheduler(kind):
    pipeline = tiny_pipelines.flux(**tiny_pipelines.DYNAMIC, time_shift_type=kind)
    prior, times = from_loaded(pipeline), torch.linspace(0.1, 1, 8)
    found = []
    for height, width in ((16, 24), (48, 64)):
        tokens = height * width // 16
        shift = 0.5 + 0.4 * (tokens - 4) / (32 - 4)
        pipeline.scheduler.set_timesteps(sigmas=times.tolist(), mu=shift)
        found.append(prior.for_size(height, width).schedule.sigma(times))
        torch.testing.assert_close(found[-1], pipeline.scheduler.sigmas[:-1], rtol=1e-5, atol=1e-6)
    assert (found[1] > found[0])[:-1].all()


def test_a_pipeline_in_memory_is_used_before_and_after(pipelines):
    pipeline = pipelines["flux"]
    before = one_step("flux", pipeline, latents(), 1.0, "pt")
    parts = {name: (id(part), getattr(part, "device", None)) for name, part in pipeline.components.items()}
    from_loaded(pipeline, HOUSE, TREES, 2.0).denoise(latents(), torch.tensor([0.5]))
    assert parts == {name: (id(part), getattr(part, "device", None)) for name, part in pipeline.components.items()}
    assert torch.equal(one_step("flux", pipeline, latents(), 1.0, "pt"), before)


def test_an_autoencoder_that_overflows_in_half_precision_is_copied():
    pipeline = tiny_pipelines.sdxl().to(torch.float16)
    pipeline.vae.register_to_config(force_upcast=True)
    prior = from_loaded(pipeline, HOUSE)
    assert pipeline.vae.dtype == pipeline.unet.dtype == torch.float16
    picture = prior.decode(latents())
    torch.testing.assert_close(picture, from_loaded(pipeline.to(torch.float32), HOUSE).decode(latents()))


def test_a_pipeline_whose_networks_move_is_refused():
    pipeline = tiny_pipelines.sd15()
    pipeline.unet._hf_hook = object()
    with pytest.raises(InputError, match=r"StableDiffusionPipeline moves .* remove_all_hooks\(\)"):
        from_loaded(pipeline)


WRONG = {
    "autoencoder of another family": (
        lambda p: setattr(p, "vae", tiny_pipelines.kl_autoencoder()),
        "QwenImageTransformer2DModel with AutoencoderKL; supported",
    ),
    "latent channels": (
        lambda p: setattr(p, "vae", diffusers.AutoencoderKLQwenImage(base_dim=4, dim_mult=[1, 2], num_res_blocks=1)),
        "the denoiser has 4 channels and the autoencoder 16",
    ),
    "no tokenizer": (lambda p: setattr(p, "tokenizer", None), "no tokenizer"),
    "text encoder of another model": (
        lambda p: setattr(p, "transformer", tiny_pipelines.qwen_transformer(joint_attention_dim=12)),
        "gives 8 numbers a token and QwenImageTransformer2DModel takes 12",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_parts_that_do_not_belong_together_are_refused(wrong):
    change, message = WRONG[wrong]
    pipeline = tiny_pipelines.qwen_image()
    change(pipeline)
    with pytest.raises(InputError, match=message):
        from_loaded(pipeline, HOUSE)


def test_pooled_text_of_another_width_is_refused():
    pipeline = tiny_pipelines.flux()
    pipeline.tokenizer, pipeline.text_encoder = tiny_pipelines.clip(6)
    with pytest.raises(InputError, match="gives 6 numbers a token and FluxTransformer2DModel takes 8"):
        from_loaded(pipeline, HOUSE)


@pytest.mark.parametrize("name", FAMILIES)
def test_pictures_of_any_size_are_restored(name, pipelines):
    prior = from_loaded(pipelines[name], HOUSE)
    mask = torch.ones(1, 1, 15, 22)
    mask[..., 11:] = 0
    picture = torch.zeros(1, 3, 15, 22)
    observation = Observation(mask * picture, operators.Inpainting(mask), 0.1)
    result = restore(prior, observation, 2, method="ddnm", steps=4)
    assert result.images.shape == (2, 3, 15, 22)
    assert result.images.isfinite().all()
