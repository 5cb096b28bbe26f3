"""Noise levels and robust likelihoods through ComfyUI."""

import re

import numpy as np
import pytest
import torch

from tests.host.comfy_client import Graph, HostError
from tests.host.graphs import embedded_prior, fit, sample
from tests.host.test_observe import MASK, load, masked, refusal

NOISE = 0.1
SMOOTH = np.linspace(60, 190, 64)[None, :, None] + np.zeros((64, 64, 3))
NOISY = SMOOTH + NOISE * 127.5 * np.random.default_rng(0).standard_normal(SMOOTH.shape)
NOISY = NOISY.clip(0, 255).round().astype(np.uint8)


def mask(graph, kind="box"):
    """A mask for a 64-pixel picture."""
    return graph.add("VIPaintMakeMask", **(MASK | {"kind": kind, "height": 64}))[0]


def estimate(client, graph, image, **links):
    """The level and the text of Estimate Noise Level."""
    node = graph.add("VIPaintEstimateNoiseLevel", image=image, **links)
    shown = graph.add("PreviewAny", source=node[1])
    text = client.run(graph).outputs[shown.id]["text"][0]
    return float(re.search(r"noise_level ([\d.]+)", text)[1]), text


def robust(graph, observation, degrees=1.0):
    return graph.add("VIPaintRobustLikelihood", observation=observation, degrees=degrees)[0]


def test_the_noise_of_a_picture_is_found_with_and_without_a_hole(client):
    graph = Graph()
    assert estimate(client, graph, load(client, graph, NOISY))[0] == pytest.approx(NOISE, rel=0.1)
    graph = Graph()
    spoilt = NOISY.copy()
    spoilt[20:44, 20:44] = np.random.default_rng(1).integers(0, 2, (24, 24, 3)) * 255
    hole = graph.add("LoadImage", image=client.put_image("hole.png", _with_hole(spoilt)))
    assert estimate(client, graph, hole[0], mask=hole[1])[0] == pytest.approx(NOISE, rel=0.1)


def _with_hole(pixels):
    opaque = np.full((64, 64, 1), 255, np.uint8)
    opaque[18:46, 18:46] = 0
    return np.dstack([pixels, opaque])


@pytest.mark.parametrize("rows", [64, 61])
def test_a_vae_adds_what_it_cannot_reproduce(client, scene, rows):
    graph = Graph()
    image = load(client, graph, scene[:rows])
    plain, _ = estimate(client, graph, image)
    graph = Graph()
    loader, _ = embedded_prior(graph)
    covering, text = estimate(client, graph, load(client, graph, scene[:rows]), vae=loader[1])
    assert covering >= plain
    assert "the VAE's reconstruction error" in text


def test_the_level_connects_to_the_widget_of_an_observe_node(client):
    graph = Graph()
    image = load(client, graph, NOISY)
    level = graph.add("VIPaintEstimateNoiseLevel", image=image)[0]
    seen = graph.add("VIPaintObserveInpaint", image=image, mask=mask(graph), noise_level=level)[0]
    grey = load(client, graph, np.full((64, 64, 3), 128, np.uint8))
    node = graph.add("VIPaintDegradeImage", image=grey, observation=seen, seed=0)
    saved = graph.add("TestSaveTensor", image=node[0])
    pixels = client.tensor(client.run(graph), saved)
    known = pixels[(pixels - 0.5).abs() > 1e-3]
    assert (2 * known - 1).std().item() == pytest.approx(NOISE, rel=0.2)


def test_a_mask_that_leaves_no_square_is_refused(client):
    graph = Graph()
    node = graph.add(
        "VIPaintEstimateNoiseLevel", image=load(client, graph, NOISY), mask=mask(graph, "every k-th pixel")
    )
    graph.add("PreviewAny", source=node[1])
    with pytest.raises(HostError, match="squares of 4x4"):
        client.run(graph)


@pytest.mark.parametrize("degrees", [0.0, -1.0, 1e6])
def test_degrees_out_of_range_are_refused(client, degrees):
    graph = Graph()
    link = robust(graph, masked(graph, load(client, graph, NOISY)), degrees)
    assert "degrees" in refusal(client, graph, link, "observation")


def test_a_robust_observation_is_fitted_and_sampled(client, scene):
    graph = Graph()
    loader, label = embedded_prior(graph)
    seen = robust(graph, masked(graph, load(client, graph, scene)))
    guided = graph.add("CFGGuider", model=loader[0], positive=label, negative=label, cfg=1.0)[0]
    fitted = fit(graph, guided, loader[1], seen)
    sampled = sample(graph, fitted[0], guided, loader[1], seen)
    saved = graph.add("TestSaveTensor", image=sampled[1])
    pixels = client.tensor(client.run(graph), saved)
    assert pixels.shape == (2, 64, 64, 3)
    assert torch.isfinite(pixels).all()


@pytest.mark.parametrize("preset", ["published v1", "published v2"])
def test_a_published_preset_refuses_it(client, scene, preset):
    graph = Graph()
    loader, label = embedded_prior(graph)
    seen = robust(graph, masked(graph, load(client, graph, scene)))
    guided = graph.add("CFGGuider", model=loader[0], positive=label, negative=label, cfg=1.0)[0]
    fitted = fit(graph, guided, loader[1], seen, preset=preset)
    assert "takes noise as Gaussian" in refusal(client, graph, fitted[1])


def test_a_perceptual_weight_without_its_package_is_refused(client, scene):
    graph = Graph()
    loader, label = embedded_prior(graph)
    guided = graph.add("CFGGuider", model=loader[0], positive=label, negative=label, cfg=1.0)[0]
    seen = masked(graph, load(client, graph, scene))
    fitted = fit(graph, guided, loader[1], seen, perceptual_weight=1.0)
    assert "pip install lpips" in refusal(client, graph, fitted[1])
