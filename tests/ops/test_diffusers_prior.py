"""Priors from diffusers models: predictions, gradients, batches, loading."""

from types import SimpleNamespace

import diffusers
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)

from tests.ops.conftest import tiny_networks
from vipaint_ops.diffusion.schedule import NoiseSchedule
from vipaint_ops.errors import InputError
from vipaint_ops.priors.diffusers import Conditions, DiffusersPrior, Training, training_of

SCHEDULE = NoiseSchedule.scaled_linear(0.00085, 0.012)
FLOW = NoiseSchedule.rectified_flow(3.0)
TIMES = torch.tensor([0.2, 0.9])
EPSILON = Training(SCHEDULE, "epsilon")


def make(prediction_type="epsilon", schedule=SCHEDULE, dtype=torch.float32, conditions=None):
    networks = (network.to(dtype) for network in tiny_networks())
    return DiffusersPrior(*networks, Training(schedule, prediction_type), conditions)


def text_unet(**keywords):
    torch.manual_seed(1)
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=6,
        attention_head_dim=4,
        **blocks | keywords,
    )


def latents(count=2, dtype=torch.float32):
    return torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(0), dtype=dtype)


def row(seed, *shape):
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("prediction_type", "schedule", "target"),
    [
        ("epsilon", SCHEDULE, lambda z0, eps, alpha, sigma: eps),
        ("v_prediction", SCHEDULE, lambda z0, eps, alpha, sigma: alpha * eps - sigma * z0),
        ("sample", SCHEDULE, lambda z0, eps, alpha, sigma: z0),
        ("flow", FLOW, lambda z0, eps, alpha, sigma: eps - z0),
    ],
)
def test_the_exact_prediction_of_every_type_gives_the_clean_latent(prediction_type, schedule, target, monkeypatch):
    prior = make(prediction_type, schedule)
    z0, eps = latents(4, torch.float64).chunk(2)
    times = TIMES.double()
    alpha, sigma = (v.view(-1, 1, 1, 1) for v in (schedule.alpha(times), schedule.sigma(times)))
    seen = {}

    def forward(sample, timestep):
        seen["timestep"] = timestep
        return SimpleNamespace(sample=target(z0, eps, alpha, sigma))

    monkeypatch.setattr(prior._denoiser.network, "forward", forward)
    torch.testing.assert_close(prior.denoise(alpha * z0 + sigma * eps, times), z0)
    expected = 1000 * schedule.sigma(times) if prediction_type == "flow" else 999 * times
    torch.testing.assert_close(seen["timestep"], expected)


def test_an_epsilon_network_follows_the_formula_of_ddpm():
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    denoiser, autoencoder = tiny_networks()
    prior = DiffusersPrior(denoiser, autoencoder, training_of(scheduler))
    z, step = latents(), torch.tensor([3, 777])
    abar = scheduler.alphas_cumprod[step].view(-1, 1, 1, 1)
    with torch.no_grad():
        expected = (z - (1 - abar).sqrt() * denoiser(z, step).sample) / abar.sqrt()
        torch.testing.assert_close(prior.denoise(z, step / 999), expected, rtol=1e-4, atol=1e-4)


def test_flow_matching_schedulers_keep_their_shift():
    training = training_of(FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert training.schedule.description == FLOW.description
    assert (training.prediction_type, training.steps) == ("flow", 1000)


@pytest.mark.parametrize("kind", ["DDIM", "DDPM", "EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep"])
def test_zero_terminal_snr_gives_the_noise_levels_of_comfyui(kind):
    """The table of ``rescale_zero_terminal_snr_sigmas`` in ComfyUI 0.33.0, comfy/model_sampling.py."""
    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = getattr(diffusers, f"{kind}Scheduler")(
        **settings, rescale_betas_zero_snr=True, prediction_type="v_prediction"
    )
    root = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2, 0).sqrt()
    signal = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    signal[-1] = 4.8973451890853435e-08
    training, steps = training_of(scheduler), torch.arange(1000, dtype=torch.float64) / 999
    schedule = training.schedule
    ratio = schedule.sigma(steps) / schedule.alpha(steps)
    torch.testing.assert_close(ratio, ((1 - signal) / signal).sqrt(), rtol=1e-3, atol=0)
    assert (training.prediction_type, training.steps) == ("v_prediction", 1000)
    assert scheduler.betas[-1] == 1


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_every_schedule_with_zero_terminal_snr_falls_to_almost_no_signal(beta_schedule):
    schedule = training_of(DDPMScheduler(beta_schedule=beta_schedule, rescale_betas_zero_snr=True)).schedule
    signal = schedule.alpha(torch.linspace(0, 1, 1000, dtype=torch.float64)) ** 2
    assert (signal.diff() < 0).all()
    assert 0 < signal[-1] < 5e-8


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_gradients_equal_finite_differences(prediction_type):
    prior = make(prediction_type, dtype=torch.float64)
    z, weights = latents(2, torch.float64).requires_grad_(), latents(4, torch.float64)[2:]
    direction = latents(6, torch.float64)[4:]

    def value(x):
        return (weights * prior.denoise(x, TIMES.double())).sum() + prior.decode(x).square().mean()

    (gradient,) = torch.autograd.grad(value(z), z)
    with torch.no_grad():
        difference = (value(z + 1e-5 * direction) - value(z - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-6, atol=1e-8)


def test_a_sample_does_not_depend_on_its_batch():
    prior, z = make(), latents(3)
    times = torch.tensor([0.1, 0.5, 0.9])
    together = prior.denoise(z, times)
    alone = torch.cat([prior.denoise(z[i : i + 1], times[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_networks_are_frozen():
    denoiser, autoencoder = tiny_networks()
    prior = DiffusersPrior(denoiser.train(), autoencoder.train(), EPSILON)
    prior.decode(prior.denoise(latents().requires_grad_(), TIMES)).sum().backward()
    for network in (denoiser, autoencoder):
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())
        assert all(p.grad is None for p in network.parameters())


def test_latents_are_scaled_and_shifted_both_ways():
    denoiser, autoencoder = tiny_networks()
    autoencoder.register_to_config(scaling_factor=1.5, shift_factor=0.25)
    prior, x = DiffusersPrior(denoiser, autoencoder, EPSILON), row(0, 3, 64, 64)
    raw = autoencoder.encode(x).latent_dist.mean
    torch.testing.assert_close(prior.encode(x), 1.5 * (raw - 0.25))
    torch.testing.assert_close(prior.decode(prior.encode(x)), autoencoder.decode(raw).sample, rtol=1e-4, atol=1e-5)


def test_guidance_extrapolates_between_the_two_predictions():
    def prior(*conditions):
        training = Training(SCHEDULE, "v_prediction")
        return DiffusersPrior(text_unet(), tiny_networks()[1], training, Conditions(*conditions))

    yes, no = ({"encoder_hidden_states": row(seed, 5, 6)} for seed in (1, 2))
    guided, unguided = (prior(c).denoise(latents(), TIMES) for c in (yes, no))
    assert (guided - unguided).abs().max() > 1e-4
    both = prior(yes, no, 3.0).denoise(latents(), TIMES)
    torch.testing.assert_close(both, unguided + 3 * (guided - unguided), rtol=1e-4, atol=1e-5)


def test_the_condition_alone_is_the_prediction_without_guidance():
    def prior(*conditions):
        training = Training(SCHEDULE, "v_prediction")
        return DiffusersPrior(text_unet(), tiny_networks()[1], training, Conditions(*conditions))

    yes, no = ({"encoder_hidden_states": row(seed, 5, 6)} for seed in (1, 2))
    guided, z = prior(yes, no, 3.0), latents()
    conditional = prior(yes).denoise(z, TIMES)
    together = guided.denoise_with_condition(z, TIMES)
    torch.testing.assert_close(together, (guided.denoise(z, TIMES), conditional), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(guided.denoise_condition(z, TIMES), conditional, rtol=1e-4, atol=1e-5)


def test_class_labels_reach_the_network():
    network, prompt = text_unet(num_class_embeds=3), row(1, 5, 6)
    label = torch.tensor([2])
    conditioning = {"encoder_hidden_states": prompt, "class_labels": label}
    prior = DiffusersPrior(network, tiny_networks()[1], Training(SCHEDULE, "sample"), Conditions(conditioning))
    expected = network(latents(), 999 * TIMES, prompt.expand(2, -1, -1), class_labels=label.expand(2)).sample
    torch.testing.assert_close(prior.denoise(latents(), TIMES), expected)


def test_sdxl_gets_the_size_of_the_picture():
    network = text_unet(
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=7 + 6 * 4
    )
    row_of = {"encoder_hidden_states": row(1, 5, 6), "text_embeds": row(2, 7)}
    prior = DiffusersPrior(network, tiny_networks()[1], Training(SCHEDULE, "sample"), Conditions(row_of))
    time_ids = torch.tensor([[64.0, 32, 0, 0, 64, 32]]).expand(2, -1)
    z = latents()[..., :8]
    expected = network(
        z,
        TIMES * 999,
        encoder_hidden_states=row_of["encoder_hidden_states"].expand(2, -1, -1),
        added_cond_kwargs={"text_embeds": row_of["text_embeds"].expand(2, -1), "time_ids": time_ids},
    ).sample
    torch.testing.assert_close(prior.for_size(64, 32).denoise(z, TIMES), expected)


def test_transformers_of_stable_diffusion_3_predict_flow():
    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=6,
        caption_projection_dim=16,
        pooled_projection_dim=7,
        pos_embed_max_size=10,
    )
    row_of = {"encoder_hidden_states": row(1, 5, 6), "pooled_projections": row(2, 7)}
    prior = DiffusersPrior(network, tiny_networks()[1], Training(FLOW, "flow"), Conditions(row_of))
    sigma = FLOW.sigma(TIMES)
    velocity = network(
        latents(),
        timestep=1000 * sigma,
        encoder_hidden_states=row_of["encoder_hidden_states"].expand(2, -1, -1),
        pooled_projections=row_of["pooled_projections"].expand(2, -1),
    ).sample
    torch.testing.assert_close(prior.denoise(latents(), TIMES), latents() - sigma.view(-1, 1, 1, 1) * velocity)
    assert prior.picture_multiple == 8
    with pytest.raises(InputError, match="up to 80 pixels"):
        prior.for_size(88, 64)


def test_half_precision_stays_inside():
    prior = make("v_prediction", dtype=torch.bfloat16)
    z = latents().requires_grad_()
    out = prior.decode(prior.denoise(z, TIMES))
    (gradient,) = torch.autograd.grad(out.sum(), z)
    assert {out.dtype, gradient.dtype, prior.dtype, prior.encode(out).dtype} == {torch.float32}
    torch.testing.assert_close(prior.denoise(z, TIMES), make("v_prediction").denoise(z, TIMES), rtol=0.1, atol=0.1)


def test_the_identity_names_weights_in_any_precision_and_the_prompt():
    identity = make().identity
    assert identity.startswith("UNet2DModel+AutoencoderKL ")
    assert {make(dtype=dtype).identity for dtype in (torch.float16, torch.bfloat16)} == {identity}
    other = DiffusersPrior(*tiny_networks(seed=5), EPSILON)
    assert len({identity, other.identity, make(conditions=Conditions(label="prompt 'a'")).identity}) == 3


def test_sizes_follow_the_picture():
    prior = make()
    assert prior.latent_shape == (4, 16, 16)
    assert prior.for_size(72, 40).latent_shape == (4, 18, 10)
    assert prior.latent_shape == (4, 16, 16)
    assert prior.decode(row(0, 4, 18, 10)).shape == (1, 3, 72, 40)
    with pytest.raises(InputError, match="multiples of 8"):
        prior.for_size(72, 44)


def test_unsupported_models_are_refused():
    denoiser, autoencoder = tiny_networks()
    with pytest.raises(InputError, match="prediction_type is 'score'"):
        Training(SCHEDULE, "score")
    with pytest.raises(InputError, match="cfg is 2"):
        Conditions(cfg=2.0)
    with pytest.raises(InputError, match="AutoencoderKL with UNet2DModel; supported"):
        DiffusersPrior(autoencoder, denoiser, EPSILON)
    with pytest.raises(InputError, match="inpainting"):
        DiffusersPrior(denoiser, AutoencoderKL(latent_channels=8), EPSILON)
