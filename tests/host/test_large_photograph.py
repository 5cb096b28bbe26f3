"""A small hole in a photograph of 4000x3000 pixels, on the layout of Stable Diffusion 1.5."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.host.comfy_client import Graph
from tests.host.graphs import INPAINT, conditioning, tiny, with_hole


@pytest.fixture(scope="module")
def photograph(scene):
    return np.asarray(Image.fromarray(scene).resize((4000, 3000), Image.Resampling.BICUBIC))


def inpainted(client, name: str, pixels: np.ndarray, hole: np.ndarray):
    """The picture, and the cells that pass through the model for it. The model itself is not run."""
    graph = Graph()
    model = tiny(graph, "sd15")
    counted = graph.add("TestCountCells", model=model.model, name=name)
    image = graph.add("LoadImage", image=client.put_image(name, with_hole(pixels, hole)))
    node = graph.add(
        "VIPaintInpaint",
        model=counted[0],
        positive=conditioning(graph, model, 0),
        negative=conditioning(graph, model, 1),
        vae=[model.model[0], 2],
        image=image[0],
        mask=image[1],
        **(INPAINT | {"cfg": 3.0, "num_samples": 1}),
    )
    shown = graph.add("SaveImage", images=node[0], filename_prefix="large")
    cells = graph.add("TestCountedCells", image=node[0])
    run = client.run(graph, timeout=1800)
    return client.images(run, shown)[0], client.report(run, cells)


def test_it_costs_what_a_window_costs_and_all_else_is_kept(client, photograph):
    hole = np.zeros((3000, 4000), dtype=bool)
    hole[1200:1300, 2600:2700] = True
    picture, large = inpainted(client, "large.png", photograph, hole)
    assert (picture == photograph)[~hole].all()
    assert (picture != photograph)[hole].mean() > 0.5
    _, window = inpainted(client, "window.png", photograph[1000:1512, 2400:2912], hole[1000:1512, 2400:2912])
    assert large == window
    assert large["largest"] <= 2 * 4 * 64 * 64
