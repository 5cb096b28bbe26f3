"""Masks as artists make them, and sides that the model does not take, in the host."""

from __future__ import annotations

import numpy as np
import pytest

from tests.host.comfy_client import Graph
from tests.host.graphs import INPAINT, embedded_prior
from tests.host.test_samplers import Sampling

FILLS = {"white": 255, "black": 0}


def painted(scene: np.ndarray, hidden: np.ndarray, fill: int) -> np.ndarray:
    """RGBA as the mask editor saves it: an object of colour ``fill`` under the mask, which is in alpha."""
    pixels = np.where(hidden[..., None] > 0.4, np.uint8(fill), scene)
    return np.dstack([pixels, np.uint8(np.round(255 * (1 - hidden)))])


def brush(opacity: float, softness: float) -> np.ndarray:
    """A round stroke of the mask editor on 64 x 64 pixels, in [0, 1]."""
    rows, columns = np.mgrid[:64, :64]
    distance = np.hypot(rows - 40, columns - 34)
    return opacity * np.clip((16 - distance) / max(softness, 1e-6) + 0.5, 0, 1)


@pytest.mark.parametrize("hidden", [brush(0.7, 0), brush(1.0, 8), brush(0.996, 0)], ids=["opacity", "soft", "8-bit"])
def test_what_a_brush_covers_is_removed(client, scene, hidden):
    results = []
    for name, fill in FILLS.items():
        graph = Graph()
        loader, label = embedded_prior(graph)
        image = graph.add("LoadImage", image=client.put_image(f"painted_{name}.png", painted(scene, hidden, fill)))
        node = graph.add(
            "VIPaintInpaint",
            model=loader[0],
            vae=loader[1],
            positive=label,
            negative=label,
            image=image[0],
            mask=image[1],
            **(INPAINT | {"num_samples": 1}),
        )
        shown = graph.add("SaveImage", images=node[0], filename_prefix="painted")
        results.append(client.images(client.run(graph), shown).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1
    known = hidden == 0
    assert np.abs(results[0] - scene)[:, known].max() <= 1


@pytest.mark.parametrize("node", ["VIPaintObserveInpaint", "VIPaintCropForInpaint"])
def test_paint_of_the_mask_editor_in_the_image_is_told(client, scene, node):
    settings = {"VIPaintObserveInpaint": {"noise_level": 0.05}}.get(node, {"size": 64, "context": 0.5, "enlarge": 2.0})
    graph, hidden, told = Graph(), brush(1.0, 0), {}
    for name, pixels in {"plain": scene, "painted": painted(scene, hidden, 0)[..., :3]}.items():
        picture = client.put_image(f"paint_{name}.png", np.dstack([pixels, np.uint8(255 * (1 - hidden))]))
        image = graph.add("LoadImage", image=picture)
        told[name] = graph.add(node, image=image[0], mask=image[1], **settings)
        graph.add("PreviewAny", source=told[name][0])
    texts = client.run(graph).texts()
    assert "looks painted over under the mask" in texts[told["painted"].id]
    assert "painted" not in texts.get(told["plain"].id, "")


@pytest.mark.parametrize("method", ["VIPaintDInGSampler", "VIPaintKalmanSampler"])
def test_a_sampler_with_sides_that_the_model_does_not_take(client, scene, method):
    cut = scene[:58, :61]
    hole = np.zeros((58, 61))
    hole[20:40, 30:50] = 1
    given = Sampling(client, painted(cut, hole, 255), hole="odd.png")
    decoded = given.graph.add("VAEDecode", samples=given.run(given.method(method))[0], vae=given.vae)
    composited = given.composited(decoded)
    cropped = given.graph.add("VIPaintCropToObservation", images=decoded[0], observation=given.observation)
    shown = [given.graph.add("SaveImage", images=node[0], filename_prefix="odd") for node in (composited, cropped)]
    run = client.run(given.graph)
    pictures = [client.images(run, node).astype(int) for node in shown]
    assert all(batch.shape == (2, 58, 61, 3) for batch in pictures)
    assert np.abs(pictures[0] - cut)[:, hole == 0].max() <= 1
