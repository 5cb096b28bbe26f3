"""Load LDM Checkpoint against diffusers: the embedded prior, and small models in the layouts of CompVis's."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.host.comfy_client import Graph, HostError
from tests.host.tiny_ldm import CLASSES, KINDS, TinyLDM
from vipaint_ops import load_embedded_prior
from vipaint_ops.priors.embedded import EMBEDDED_PRIOR

EMBEDDED = "embedded prior (64x64 scenes)"
SEED = 7


@pytest.fixture(scope="module")
def folder(server):
    return Path(server.base) / "models/checkpoints"


@pytest.fixture(scope="module")
def tiny(folder):
    """A model of each kind, by kind; their checkpoints are ``ldm_<kind>.safetensors``."""
    models = {kind: TinyLDM(kind) for kind in KINDS}
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
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=SEED)[0],
        guider=guider,
        sigmas=sigmas,
        sampler=graph.add("KSamplerSelect", sampler_name="euler")[0],
        latent_image=latent,
    )
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
    assert (again - reference.decode(reference.scale * encoded)).abs().max() < 1e-4
    assert again.std() > 0.01


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
        "KSampler",
        model=model,
        seed=1,
        steps=3,
        cfg=2.0,
        sampler_name="euler",
        scheduler="normal",
        positive=conditions[0],
        negative=conditions[1],
        latent_image=latent[0],
        denoise=1.0,
    )
    decoded = graph.add("TestSaveTensor", image=graph.add("VAEDecode", samples=samples[0], vae=vae)[0])
    guider = graph.add("CFGGuider", model=model, positive=conditions[0], negative=conditions[1], cfg=2.0)[0]
    sigmas = steps_to(graph, model, 2)
    gradient = graph.add("TestPlainGradient", guider=guider, latent=latent[0], sigmas=sigmas, seed=0, step=0.003)
    run = client.run(graph)
    factor = 8 if kind == "churches" else 4
    picture, found = client.tensor(run, decoded), client.report(run, gradient)
    assert picture.shape == (2, 8 * factor, 8 * factor, 3)
    assert picture.isfinite().all()
    assert picture.std() > 0.01
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
