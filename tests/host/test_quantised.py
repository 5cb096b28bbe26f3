"""Quantised models from loader to restored picture, against the same weights dequantised."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.host import quantised_checkpoints
from tests.host.comfy_client import Graph, HostError, Link
from tests.host.comfy_server import GGUF_PACK, find_comfyui
from tests.host.graphs import INPAINT, Tiny, guider, right_half, with_hole
from tests.host.test_gradients import gradients, vae_for
from tests.host.test_samplers import Sampling

SAMPLERS = ("VIPaintDInGSampler", "VIPaintDDNMSampler", "VIPaintKalmanSampler")
NO_GRADIENT = "out of memory"
"""Defect of a model: this is raised if a gradient is requested."""
SETTINGS = {"VIPaintKalmanSampler": {"solver_iterations": 16}}
PRESETS = ("fast", "balanced")
"""Presets of the all-in-one nodes."""
TEXT = {"width": 64, "pooled": 32, "attention_mask": False}


@pytest.fixture(params=quantised_checkpoints.FORMATS)
def form(request, client):
    """A format that this ComfyUI loads."""
    name = request.param
    if name == "gguf" and "UnetLoaderGGUF" not in client.object_info():
        pytest.skip(f"{GGUF_PACK} is not in custom_nodes of this ComfyUI")
    layer = quantised_checkpoints.FORMATS[name].layer
    if layer and str(layer["format"]) not in known_formats():
        pytest.skip(f"this ComfyUI does not load {layer['format']}")
    return name


def known_formats() -> str:
    """The source that lists ComfyUI's formats; empty for 0.3.64, which has scaled fp8 only."""
    source = find_comfyui() / "comfy/quant_ops.py"
    return source.read_text() if source.is_file() else ""


def rounds_more(form: str) -> bool:
    """Whether layers round more than their weights: int8 their inputs, ComfyUI 0.3.64 their biases."""
    return form == "int8" or not known_formats()


def quantised(graph: Graph, form: str) -> Link:
    """The tiny SD3 with quantised weights."""
    if form == "gguf":
        return graph.add("UnetLoaderGGUF", unet_name="tiny_sd3_gguf.gguf")[0]
    return unet(graph, f"tiny_sd3_{form}")


def dequantised(graph: Graph, form: str) -> Link:
    """The same weights in an ordinary file."""
    return unet(graph, f"tiny_sd3_{form}_plain")


def unet(graph: Graph, name: str) -> Link:
    return graph.add("UNETLoader", unet_name=f"{name}.safetensors", weight_dtype="default")[0]


def spoilt(graph: Graph, model: Link, defect: str = NO_GRADIENT) -> Link:
    return graph.add("TestSpoiltModel", model=model, defect=defect)[0]


def agree(ours, twin, original, form: str) -> None:
    """Quantised and dequantised weights give the same, by far closer than the weights before quantisation."""
    weights_only = (original - twin).norm()
    assert weights_only > 0
    assert (ours - twin).norm() <= (2.0 if rounds_more(form) else 0.05) * weights_only


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_restore_as_with_the_dequantised_weights(client, scene, form, name):
    """The Kalman sampler takes differences of the model, which amplify the rounding of inputs on random weights."""
    given = Sampling(client, with_hole(scene, right_half(scene)), "sd3")
    latent, sigmas = given.latent(), given.sigmas()
    models = (quantised(given.graph, form), dequantised(given.graph, form), given.model)
    saved = []
    for model in models:
        given.model = spoilt(given.graph, model)
        sampled = given.run(given.method(name, **SETTINGS.get(name, {})), latent, sigmas, cfg=2.0)
        pictures = given.graph.add("VAEDecode", samples=sampled[0], vae=given.vae)
        saved.append((given.kept(sampled), given.graph.add("TestSaveTensor", image=pictures[0])))
    run = client.run(given.graph)
    ours, twin, original = ([client.tensor(run, node) for node in pair] for pair in saved)
    assert all(result.isfinite().all() for result in ours)
    amplified = name == "VIPaintKalmanSampler" and rounds_more(form)
    if not amplified:
        agree(ours[0], twin[0], original[0], form)
    error, expected = (observed_error(pictures, scene) for pictures in (ours[1], twin[1]))
    assert error <= (1.03 if amplified else 1.01) * expected


def observed_error(pictures: torch.Tensor, scene: np.ndarray) -> float:
    """Root mean square, of the known half."""
    known = torch.from_numpy(~right_half(scene))
    return (pictures - torch.tensor(scene) / 255)[:, known].square().mean().sqrt().item()


@pytest.mark.parametrize("form", ["scaled_fp8", "int8", "gguf"], indirect=True)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_all_in_one_node_restores_without_gradients_of_the_model(client, scene, form, preset):
    given = Sampling(client, with_hole(scene, right_half(scene)), "sd3")
    node = given.graph.add(
        "VIPaintInpaint",
        model=spoilt(given.graph, quantised(given.graph, form)),
        positive=given.positive,
        negative=given.negative,
        vae=given.vae,
        image=given.image[0],
        mask=given.image[1],
        **(INPAINT | {"preset": preset, "num_samples": 1}),
    )
    shown = given.graph.add("TestSaveTensor", image=node[0])
    pictures = client.tensor(client.run(given.graph), shown)
    assert pictures.isfinite().all()
    assert observed_error(pictures, scene) <= 1 / 255


def test_gradients_are_finite_differences(client, form):
    graph = Graph()
    model = Tiny(quantised(graph, form), 16, TEXT)
    report = gradients(client, graph, guider(graph, model), vae_for(graph, 16), step=0.01)
    found = report["denoiser"]
    assert found["automatic"] == pytest.approx(found["finite_difference"], rel=0.01)


@pytest.mark.parametrize(
    ("defect", "cause"), [("no gradient", "cannot be differentiated"), ("half a gradient", "gradient of this model is")]
)
def test_a_refusal_names_methods_without_gradients(client, form, defect, cause):
    graph = Graph()
    model = Tiny(spoilt(graph, quantised(graph, form), defect), 16, TEXT)
    with pytest.raises(HostError, match=f"{cause}.*presets fast, balanced and quality.*DInG.*DDNM.*LanPaint"):
        gradients(client, graph, guider(graph, model), vae_for(graph, 16))


@pytest.mark.parametrize("form", ["gguf"], indirect=True)
def test_gguf_of_a_model_with_changes_in_place_runs_without_a_gradient(client, scene, form):
    given = Sampling(client, with_hole(scene, right_half(scene)), "sd3")
    given.model = given.graph.add("UnetLoaderGGUF", unet_name="tiny_flux_gguf.gguf")[0]
    for name in ("VIPaintDInGSampler", "VIPaintKalmanSampler"):
        (latents,) = given.latents(given.run(given.method(name)))
        assert latents.isfinite().all()
    message = given.refusal(given.run(given.method("VIPaintDPSSampler")))
    assert "cannot be differentiated" in message and "DInG" in message
