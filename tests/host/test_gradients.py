"""Gradients through the host's networks, as the pack takes them, against finite differences."""

from __future__ import annotations

import pytest

from tests.host.comfy_client import Graph, HostError
from tests.host.graphs import conditioning, guider, tiny

TOLERANCE = 0.01
IN_BOTH = ["sd15", "sd15_inpaint", "sd3", "built unet"]
TRANSFORMERS = ["built flux", "built chroma", "built qwen", "built z-image", "built wan"]


def vae_for(graph: Graph, channels: int):
    return graph.add("VAELoader", vae_name=f"tiny_taesd_{channels}.safetensors")[0]


def gradients(client, graph: Graph, guided, vae, **settings) -> dict[str, dict[str, float]]:
    """What the pack's gradients and finite differences are, for denoiser and decoder."""
    inputs = {"height": 64, "width": 128, "t": 0.5, "checkpointing": "auto", "step": 0.003, "batch": 1} | settings
    node = graph.add("TestPackGradient", guider=guided, vae=vae, **inputs)
    return client.report(client.run(graph), node)


def agree(report: dict[str, dict[str, float]]) -> bool:
    return all(
        abs(found["automatic"] - found["finite_difference"]) <= TOLERANCE * abs(found["finite_difference"])
        for found in report.values()
    )


@pytest.mark.parametrize("name", IN_BOTH + TRANSFORMERS)
@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_gradients_are_finite_differences(client, name, checkpointing):
    graph = Graph()
    model = tiny(graph, name)
    report = gradients(client, graph, guider(graph, model), vae_for(graph, model.channels), checkpointing=checkpointing)
    assert agree(report), report


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_with_and_without_guidance_in_a_batch(client, cfg):
    graph = Graph()
    model = tiny(graph, "sd15")
    report = gradients(client, graph, guider(graph, model, cfg=cfg), vae_for(graph, 4), batch=2)
    assert agree(report), report


def test_the_decoder_of_an_autoencoder_kl(client):
    graph = Graph()
    model = tiny(graph, "sd15")
    report = gradients(client, graph, guider(graph, model), graph.add("TestTinyVAE", seed=0)[0])
    assert agree(report), report


def test_conditions_on_an_area(client):
    graph = Graph()
    model = tiny(graph, "sd15")
    positive, negative = (conditioning(graph, model, seed) for seed in (0, 1))
    left = graph.add("ConditioningSetArea", conditioning=positive, width=64, height=64, x=0, y=0, strength=1.0)
    both = graph.add("ConditioningCombine", conditioning_1=left[0], conditioning_2=negative)
    guided = graph.add("CFGGuider", model=model.model, positive=both[0], negative=negative, cfg=2.0)
    report = gradients(client, graph, guided[0], vae_for(graph, 4))
    assert agree(report), report


@pytest.mark.parametrize("name", ["sd15", "sd3"])
def test_weights_in_a_reused_buffer(client, name):
    graph = Graph()
    model = tiny(graph, name)
    paged = graph.add("TestReusedWeightBuffer", model=model.model, vae=vae_for(graph, model.channels))
    guided = guider(graph, model, model=paged[0])
    report = gradients(client, graph, guided, paged[1])
    assert agree(report), report


@pytest.mark.parametrize("name", ["sd15", "sd3"])
def test_weights_in_a_reused_buffer_make_the_plain_gradient_wrong(client, name):
    graph = Graph()
    model = tiny(graph, name)
    paged = graph.add("TestReusedWeightBuffer", model=model.model)
    latent = graph.add("TestLatent", channels=model.channels, height=8, width=8, batch=1, nonce=0)
    sigmas = graph.add("BasicScheduler", model=model.model, scheduler="simple", steps=2, denoise=0.5)
    node = graph.add(
        "TestPlainGradient",
        guider=guider(graph, model, model=paged[0]),
        latent=latent[0],
        sigmas=sigmas[0],
        seed=0,
        step=0.003,
    )
    found = client.report(client.run(graph), node)
    assert not agree({"denoiser": found}), found


def test_a_vae_of_another_model_is_named(client):
    graph = Graph()
    model = tiny(graph, "sd15")
    with pytest.raises(HostError, match="vae has latents of 16 channels and the model of 4"):
        gradients(client, graph, guider(graph, model), vae_for(graph, 16))


@pytest.mark.parametrize(
    ("defect", "words"),
    [
        ("no gradient", "this model cannot be differentiated in this ComfyUI"),
        ("half a gradient", "the gradient of this model is wrong in this ComfyUI"),
        (
            "out of memory",
            "out of memory in the first pass of the model, with one sample of 128 x 64 pixels: set checkpointing",
        ),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_with_the_remedy(client, defect, words):
    graph = Graph()
    model = tiny(graph, "sd15")
    spoilt = graph.add("TestSpoiltModel", model=model.model, defect=defect)
    with pytest.raises(HostError, match=words):
        gradients(client, graph, guider(graph, model, model=spoilt[0]), vae_for(graph, 4))
