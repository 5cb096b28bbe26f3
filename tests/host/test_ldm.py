"""Load LDM Checkpoint against diffusers: the embedded prior, and small models in the layouts of CompVis's."""

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel, VQModel
from diffusers.models.attention_processor import Attention
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.host.comfy_client import Graph, HostError
from vipaint_ops import NoiseSchedule, load_embedded_prior
from vipaint_ops.embedded import EMBEDDED_PRIOR

EMBEDDED = "embedded prior (64x64 scenes)"
KINDS = ["churches", "faces", "classes"]
CLASSES = 10
SEED = 7


def fill(network, seed):
    """Weights of the spread they have after training, normalisations near 1."""
    numbers = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        spread = 0.1 if parameter.ndim < 2 else 0.7 * parameter[0].numel() ** -0.5
        torch.nn.init.normal_(parameter, 0.0, spread, generator=numbers)
    for module in network.modules():
        if isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            module.weight.data += 1
    return network.eval().requires_grad_(False)


def autoencoder(kind):
    """kl-f8 for churches, vq-f4 with 64 codes for the others."""
    levels, widths = (4, [32, 32, 64, 64]) if kind == "churches" else (3, [32, 64, 64])
    settings = {
        "block_out_channels": widths, "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels,
    }  # fmt: skip
    if kind == "churches":
        return fill(AutoencoderKL(latent_channels=4, **settings), 1)
    network = fill(VQModel(latent_channels=3, num_vq_embeddings=64, **settings), 1)
    network.quantize.embedding.weight.data *= 2
    return network


def denoiser(kind):
    """Churches resample in residual blocks and have 8 heads; faces have heads of 32 channels; classes transformers."""
    widths = [32, 64, 96]
    if kind == "classes":
        network = UNet2DConditionModel(
            in_channels=3, out_channels=3, block_out_channels=widths, cross_attention_dim=16, attention_head_dim=1,
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        )  # fmt: skip
    elif kind == "faces":
        network = UNet2DModel(
            in_channels=3, out_channels=3, block_out_channels=widths, attention_head_dim=32,
            down_block_types=["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
            up_block_types=["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        )  # fmt: skip
    else:
        network = UNet2DModel(
            in_channels=4, out_channels=4, block_out_channels=widths, resnet_time_scale_shift="scale_shift",
            downsample_type="resnet", upsample_type="resnet", attn_norm_num_groups=32,
            down_block_types=["AttnDownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
            up_block_types=["ResnetUpsampleBlock2D", "AttnUpBlock2D", "AttnUpBlock2D"],
        )  # fmt: skip
        for module in network.modules():
            if isinstance(module, Attention):
                module.heads = 8
    return fill(network, 2)


RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


def compvis_unet(network, heads):
    """A diffusers UNet's weights under CompVis's names; q, k and v of plain attention joined head by head."""
    layers = network.config.layers_per_block
    first = {
        "conv_in": "input_blocks.0.0", "conv_out": "out.2", "conv_norm_out": "out.0",
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    }  # fmt: skip
    weights = network.state_dict()
    renamed = {}
    for key, value in weights.items():
        module, kind = key.rsplit(".", 1)
        if module in first:
            renamed[f"{first[module]}.{kind}"] = value
            continue
        place, level, part, index, rest = re.fullmatch(
            r"(down|mid|up)_blocks?\.?(\d*)\.(\w+)\.(\d+)\.(.*)", module
        ).groups()
        first_block, index = int(level or 0) * (layers + 1), int(index)
        last_block, number = first_block + layers, first_block + index
        block = {"down": f"input_blocks.{number + 1}", "up": f"output_blocks.{number}"}.get(place, "middle_block")
        if part == "downsamplers":
            renamed[f"input_blocks.{last_block + 1}.0.{RESNET.get(rest, 'op')}.{kind}"] = value
        elif part == "upsamplers":
            attends = any(other.startswith(f"up_blocks.{level}.attentions.") for other in weights)
            renamed[f"output_blocks.{last_block}.{1 + attends}.{RESNET.get(rest, 'conv')}.{kind}"] = value
        elif part == "resnets":
            renamed[f"{block}.{2 * index if place == 'mid' else 0}.{RESNET[rest]}.{kind}"] = value
        elif rest == "to_q":
            parts = [weights[f"{module[: -len('to_q')]}to_{x}.{kind}"].unflatten(0, (heads(value), -1)) for x in "qkv"]
            joined = torch.stack(parts, 1).flatten(0, 2)
            renamed[f"{block}.1.qkv.{kind}"] = joined[..., None] if kind == "weight" else joined
        elif rest == "to_out.0":
            renamed[f"{block}.1.proj_out.{kind}"] = value[..., None] if kind == "weight" else value
        elif rest not in ("to_k", "to_v"):
            renamed[f"{block}.1.{rest.replace('group_norm', 'norm')}.{kind}"] = value
    return renamed


def compvis_first_stage(network):
    """A diffusers autoencoder's weights under CompVis's names."""
    levels = len(network.config.block_out_channels)
    renamed = {}
    for key, value in network.state_dict().items():
        key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
        key = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", key)
        key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out")
        key = key.replace("conv_shortcut", "nin_shortcut").replace("group_norm", "norm").replace("to_out.0", "proj_out")
        key = re.sub(r"attn_1\.to_(\w)", r"attn_1.\1", key)
        renamed[key] = value[:, :, None, None] if "attn_1" in key and value.ndim == 2 else value
    return renamed


def heads_of(kind):
    return lambda query: 8 if kind == "churches" else len(query) // 32


class Tiny:
    """Both networks of a kind, in diffusers, and their checkpoint's tensors."""

    def __init__(self, kind):
        self.kind, self.denoiser, self.autoencoder = kind, denoiser(kind), autoencoder(kind)
        self.schedule = NoiseSchedule.scaled_linear(0.0015, 0.0155 if kind == "churches" else 0.0195)
        self.scale = 0.8 if kind == "churches" else 1.0
        self.classes = torch.randn(CLASSES + 1, 16, generator=torch.Generator().manual_seed(3))

    def predict(self, x, step, label=None):
        """E[x_0 | x] at a step of 1000, ``x`` as the host carries it, z / alpha."""
        alpha, sigma = self.schedule.alpha(step / 999), self.schedule.sigma(step / 999)
        context = {} if label is None else {"encoder_hidden_states": self.classes[label].expand(len(x), 1, -1)}
        return x - sigma / alpha * self.denoiser(alpha * x, step, **context).sample

    def decode(self, latent):
        return ((self.autoencoder.decode(latent / self.scale).sample + 1) / 2).clamp(0, 1).movedim(1, -1)

    def encode(self, picture):
        encoded = self.autoencoder.encode(picture.movedim(-1, 1) * 2 - 1)
        return encoded.latent_dist.mode() if self.kind == "churches" else encoded.latents

    def tensors(self):
        unet = compvis_unet(self.denoiser, heads_of(self.kind))
        tensors = {f"model.diffusion_model.{k}": v for k, v in unet.items()}
        if self.kind == "faces":  # the average counts, not the last step of training
            tensors |= {f"model_ema.{('diffusion_model.' + k).replace('.', '')}": v for k, v in unet.items()}
            tensors |= {f"model.diffusion_model.{k}": v + 0.1 for k, v in unet.items()}
        tensors |= {f"first_stage_model.{k}": v for k, v in compvis_first_stage(self.autoencoder).items()}
        if self.kind == "churches":
            tensors["scale_factor"] = torch.tensor(self.scale)
            tensors["betas"] = torch.linspace(0.0015**0.5, 0.0155**0.5, 1000) ** 2
        elif self.kind == "classes":
            tensors["cond_stage_model.embedding.weight"] = self.classes
        return {k: v.contiguous().clone() for k, v in tensors.items()}


@pytest.fixture(scope="module")
def folder(server):
    return Path(server.base) / "models/checkpoints"


@pytest.fixture(scope="module")
def tiny(folder):
    """A model of each kind, by kind; their checkpoints are ``ldm_<kind>.safetensors``."""
    models = {kind: Tiny(kind) for kind in KINDS}
    for kind, model in models.items():
        save_file(model.tensors(), folder / f"ldm_{kind}.safetensors")
    return models


def noise(*shape):
    """What the host draws for a seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED))


def steps_to(graph, model, count):
    """The host's noise levels from step 1000 - 1000 (count - 1) / count of 1000 straight to zero."""
    return graph.add("BasicScheduler", model=model, scheduler="simple", steps=1, denoise=1 / count)[0]


def one_step(graph, model, label, sigmas, shape):
    """One Euler step from noise of the first level to the second, and the guider."""
    condition = graph.add("VIPaintLDMClassLabel", model=model, label=label)[0]
    guider = graph.add("CFGGuider", model=model, positive=condition, negative=condition, cfg=1.0)[0]
    latent = graph.add("TestLatent", channels=shape[1], height=shape[2], width=shape[3], batch=shape[0], nonce=0)[0]
    sampled = graph.add(
        "SamplerCustomAdvanced", noise=graph.add("RandomNoise", noise_seed=SEED)[0], guider=guider, sigmas=sigmas,
        sampler=graph.add("KSamplerSelect", sampler_name="euler")[0], latent_image=latent,
    )  # fmt: skip
    return sampled[0], guider, latent


def result(client, graph, **value):
    """Run the graph and read one ``latent`` or ``image``."""
    node = graph.add("TestSaveTensor", **value)
    return client.tensor(client.run(graph), node)


@pytest.mark.parametrize("count", [2, 4, 10])
def test_embedded_prior_predicts_as_in_diffusers(client, count):
    graph = Graph()
    model = graph.add("VIPaintLoadLDMCheckpoint", ckpt_name=EMBEDDED)[0]
    latent, _, _ = one_step(graph, model, -1, steps_to(graph, model, count), (2, 4, 16, 16))
    prior, t = load_embedded_prior(), torch.full((2,), (1000 / count - 1) / 999)
    expected = prior.denoise(prior.schedule.sigma(t).view(-1, 1, 1, 1) * noise(2, 4, 16, 16), t)
    assert (result(client, graph, latent=latent) - expected).abs().max() < 1e-4


def test_embedded_prior_predicts_as_in_diffusers_between_the_steps(client):
    graph = Graph()
    model = graph.add("VIPaintLoadLDMCheckpoint", ckpt_name=EMBEDDED)[0]
    bounds = {"sigma_max": 2.345, "sigma_min": 0.567, "rho": 7.0}
    sigmas = graph.add("KarrasScheduler", steps=2, **bounds)
    first = graph.add("SplitSigmas", sigmas=sigmas[0], step=1)[0]
    latent, _, _ = one_step(graph, model, -1, first, (1, 4, 16, 16))
    stepped = result(client, graph, latent=latent)
    prior, high, low = load_embedded_prior(), bounds["sigma_max"], bounds["sigma_min"]
    t = torch.tensor([prior.schedule.time_at_ratio(high)])
    x = high * noise(1, 4, 16, 16)
    clean = prior.denoise(prior.schedule.alpha(t) * x, t)
    expected = clean + low / high * (x - clean)
    assert (t * 999).frac().item() not in (0.0, 1.0)
    assert (stepped - expected).abs().max() < 1e-4


def test_embedded_autoencoder_is_the_same_as_in_diffusers(client, scene):
    graph, prior = Graph(), load_embedded_prior()
    vae = graph.add("VIPaintLoadLDMCheckpoint", ckpt_name=EMBEDDED)[1]
    image = graph.add("LoadImage", image=client.put_image("scene.png", scene))[0]
    latent = graph.add("VAEEncode", pixels=image, vae=vae)[0]
    decoded = graph.add("VAEDecode", samples=latent, vae=vae)[0]
    saved = [graph.add("TestSaveTensor", latent=latent), graph.add("TestSaveTensor", image=decoded)]
    run = client.run(graph)
    encoded, picture = (client.tensor(run, node) for node in saved)
    expected = prior.encode(torch.tensor(scene).movedim(-1, 0)[None] / 127.5 - 1)
    assert (encoded - expected).abs().max() < 1e-4
    assert (picture - (prior.decode(expected).movedim(1, -1) / 2 + 0.5).clamp(0, 1)).abs().max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_compvis_checkpoint_is_the_same_as_in_diffusers(client, tiny, scene, kind):
    reference, label = tiny[kind], 3 if kind == "classes" else None
    channels = 4 if kind == "churches" else 3
    graph = Graph()
    model, vae = (graph.add("VIPaintLoadLDMCheckpoint", ckpt_name=f"ldm_{kind}.safetensors")[i] for i in (0, 1))
    latent, _, _ = one_step(graph, model, 3 if label else -1, steps_to(graph, model, 2), (2, channels, 8, 8))
    image = graph.add("LoadImage", image=client.put_image("scene.png", scene))[0]
    encoded = graph.add("VAEEncode", pixels=image, vae=vae)[0]
    saved = [
        graph.add("TestSaveTensor", latent=latent),
        graph.add("TestSaveTensor", image=graph.add("VAEDecode", samples=latent, vae=vae)[0]),
        graph.add("TestSaveTensor", latent=encoded),
        graph.add("TestSaveTensor", image=graph.add("VAEDecode", samples=encoded, vae=vae)[0]),
    ]
    run = client.run(graph)
    clean, decoded, encoded, again = (client.tensor(run, node) for node in saved)
    ratio = reference.schedule.sigma(499 / 999) / reference.schedule.alpha(499 / 999)
    expected = reference.predict(ratio * noise(2, channels, 8, 8), 499, label)
    assert (reference.scale * clean - expected).abs().max() < 1e-4
    assert (decoded - reference.decode(reference.scale * clean)).abs().max() < 1e-4
    picture = torch.tensor(scene)[None] / 255
    assert (encoded - reference.encode(picture)).abs().max() < 1e-4
    assert (again - reference.decode(reference.scale * encoded)).abs().max() < 1e-4 and again.std() > 0.01


@pytest.mark.parametrize("kind", ["embedded", *KINDS])
def test_stock_sampler_and_gradient_run(client, tiny, kind):
    graph = Graph()
    name = EMBEDDED if kind == "embedded" else f"ldm_{kind}.safetensors"
    model, vae = (graph.add("VIPaintLoadLDMCheckpoint", ckpt_name=name)[i] for i in (0, 1))
    labels = (9, -1) if kind == "classes" else (-1, -1)
    conditions = [graph.add("VIPaintLDMClassLabel", model=model, label=label)[0] for label in labels]
    channels = 4 if kind in ("churches", "embedded") else 3
    latent = graph.add("TestLatent", channels=channels, height=8, width=8, batch=2, nonce=0)
    samples = graph.add(
        "KSampler", model=model, seed=1, steps=3, cfg=2.0, sampler_name="euler", scheduler="normal",
        positive=conditions[0], negative=conditions[1], latent_image=latent[0], denoise=1.0,
    )  # fmt: skip
    decoded = graph.add("TestSaveTensor", image=graph.add("VAEDecode", samples=samples[0], vae=vae)[0])
    guider = graph.add("CFGGuider", model=model, positive=conditions[0], negative=conditions[1], cfg=2.0)[0]
    sigmas = steps_to(graph, model, 2)
    gradient = graph.add("TestPlainGradient", guider=guider, latent=latent[0], sigmas=sigmas, seed=0, step=0.003)
    run = client.run(graph)
    factor = 8 if kind == "churches" else 4
    picture, found = client.tensor(run, decoded), client.report(run, gradient)
    assert picture.shape == (2, 8 * factor, 8 * factor, 3) and picture.isfinite().all() and picture.std() > 0.01
    assert found["automatic"] == pytest.approx(found["finite_difference"], rel=0.01)


def test_the_last_row_of_the_embedding_stands_for_no_class(client, tiny):
    pictures = []
    for label in (CLASSES - 1, -1):
        graph = Graph()
        model = graph.add("VIPaintLoadLDMCheckpoint", ckpt_name="ldm_classes.safetensors")[0]
        latent, _, _ = one_step(graph, model, label, steps_to(graph, model, 2), (1, 3, 8, 8))
        pictures.append(result(client, graph, latent=latent))
    ratio = tiny["classes"].schedule.sigma(499 / 999) / tiny["classes"].schedule.alpha(499 / 999)
    for label, picture in zip((CLASSES - 1, CLASSES), pictures, strict=True):
        assert (picture - tiny["classes"].predict(ratio * noise(1, 3, 8, 8), 499, label)).abs().max() < 1e-4
    assert (pictures[0] - pictures[1]).abs().max() > 1e-3


def load(client, name, label=-1):
    graph = Graph()
    model = graph.add("VIPaintLoadLDMCheckpoint", ckpt_name=name)[0]
    sigmas = steps_to(graph, model, 2)
    latent, _, _ = one_step(graph, model, label, sigmas, (1, 4, 8, 8))
    return result(client, graph, latent=latent)


def test_a_ckpt_that_holds_only_tensors_loads(client, tiny, folder):
    tensors = load_file(folder / "ldm_churches.safetensors")
    torch.save({"state_dict": tensors, "global_step": 3}, folder / "ldm_plain.ckpt")
    assert torch.equal(load(client, "ldm_plain.ckpt"), load(client, "ldm_churches.safetensors"))


class Callback:
    """Something a training framework leaves in its checkpoints."""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_sd15.safetensors", r"it lacks the tensors.*core Load Checkpoint node"),
        ("ldm_code.ckpt", r"ldm_code\.ckpt.*more than tensors.*\.safetensors"),
        ("ldm_cut.safetensors", r"ldm_cut.*cannot be read"),
        ("ldm_hole.safetensors", r"ldm_hole.*out_layers\.3\.weight"),
        ("ldm_unscaled.safetensors", r"ldm_unscaled.*scale_factor"),
        ("ldm_text.safetensors", r"ldm_text.*other than a class"),
        ("ldm_wide.safetensors", r"ldm_wide.*takes 5 channels to predict 4"),
        ("ldm_short.safetensors", r"ldm_short.*first stage has tensors missing.*encoder\.norm_out"),
        ("ldm_attending.safetensors", r"ldm_attending.*denoiser has settings.*attention"),
    ],
)
def test_another_checkpoint_is_refused_with_its_name(client, tiny, folder, name, message):
    churches, classes = (load_file(folder / f"ldm_{kind}.safetensors") for kind in ("churches", "classes"))
    first = "model.diffusion_model.input_blocks.0.0.weight"
    torch.save({"state_dict": churches, "callbacks": Callback()}, folder / "ldm_code.ckpt")
    (folder / "ldm_cut.safetensors").write_bytes((folder / "ldm_churches.safetensors").read_bytes()[:5000])
    variants = {
        "hole": {k: v for k, v in churches.items() if "input_blocks.1.0.out_layers.3.weight" not in k},
        "unscaled": {k: v for k, v in churches.items() if k != "scale_factor"},
        "text": {k: v for k, v in classes.items() if not k.startswith("cond_stage")},
        "short": {k: v for k, v in churches.items() if "encoder.norm_out" not in k},
        "wide": {**churches, first: torch.cat([churches[first], churches[first][:, :1]], 1)},
    }
    for variant, tensors in variants.items():
        save_file(tensors, folder / f"ldm_{variant}.safetensors")
    with safe_open(EMBEDDED_PRIOR, framework="pt") as file:
        metadata = file.metadata()
    metadata["denoiser"] = json.dumps(json.loads(metadata["denoiser"]) | {"add_attention": True})
    save_file(load_file(EMBEDDED_PRIOR), folder / "ldm_attending.safetensors", metadata)
    with pytest.raises(HostError, match=f"(?s)InputError.*{message}"):
        load(client, name)


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [("ldm_churches.safetensors", 0, "label is 0; this model takes -1"), ("ldm_classes.safetensors", 10, "-1 to 9")],
)
def test_a_label_that_the_model_does_not_know_is_refused(client, tiny, name, label, message):
    with pytest.raises(HostError, match=message):
        load(client, name, label)


def test_a_model_from_elsewhere_has_no_class_labels(client):
    graph = Graph()
    model = graph.add("CheckpointLoaderSimple", ckpt_name="tiny_sd15.safetensors")[0]
    one_step(graph, model, 1, steps_to(graph, model, 2), (1, 4, 8, 8))
    graph.add("TestSaveTensor", latent=one_step(graph, model, 1, steps_to(graph, model, 2), (1, 4, 8, 8))[0])
    with pytest.raises(HostError, match="not from Load LDM Checkpoint"):
        client.run(graph)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_through_the_pack_are_finite_differences(client, tiny, kind):
    graph = Graph()
    model, vae = (graph.add("VIPaintLoadLDMCheckpoint", ckpt_name=f"ldm_{kind}.safetensors")[i] for i in (0, 1))
    condition = graph.add("VIPaintLDMClassLabel", model=model, label=-1)[0]
    guided = graph.add("BasicGuider", model=model, conditioning=condition)
    settings = {"height": 64, "width": 64, "t": 0.5, "checkpointing": "off", "step": 0.003, "batch": 1}
    node = graph.add("TestPackGradient", guider=guided[0], vae=vae, **settings)
    for found in client.report(client.run(graph), node).values():
        assert found["automatic"] == pytest.approx(found["finite_difference"], rel=0.01)
