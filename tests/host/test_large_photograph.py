"""A small hole in a photograph of 4000x3000 pixels costs what a picture of the model's size costs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.host.comfy_client import Graph
from tests.host.graphs import inpaint, with_hole


@pytest.fixture(scope="module")
def photograph(scene):
    return np.asarray(Image.fromarray(scene).resize((4000, 3000), Image.Resampling.BICUBIC))


def inpainted(client, name: str, pixels: np.ndarray, hole: np.ndarray):
    """The picture, and the latent cells that pass through the model for it."""
    graph = Graph()
    node, shown = inpaint(graph, client.put_image(name, with_hole(pixels, hole)), num_samples=1)
    inputs = graph.prompt[node.id]["inputs"]
    inputs["model"] = graph.add("TestCountCells", model=inputs["model"], name=name)[0]
    cells = graph.add("TestCountedCells", image=node[0])
    run = client.run(graph)
    return client.images(run, shown)[0], client.report(run, cells)


def test_it_costs_what_a_window_costs_and_all_else_is_kept(client, photograph, scene):
    hole = np.zeros((3000, 4000), dtype=bool)
    hole[1200:1300, 2600:2700] = True
    picture, large = inpainted(client, "large.png", photograph, hole)
    assert (picture == photograph)[~hole].all()
    assert (picture != photograph)[hole].mean() > 0.5
    box = np.zeros((64, 64), dtype=bool)
    box[16:48, 16:48] = True
    _, small = inpainted(client, "window.png", scene, box)
    assert large == small
