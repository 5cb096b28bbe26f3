"""Where samples differ, in ComfyUI."""

import numpy as np
import pytest
import torch

from tests.host.comfy_client import Graph, HostError
from tests.host.graphs import restoration, right_half, with_hole


def uncertainty(graph, images, **inputs):
    """The node, and what saves its outputs as tensors."""
    node = graph.add("VIPaintUncertaintyMap", images=images, **inputs)
    mask = graph.add("MaskToImage", mask=node[1])
    links = {"map": node[0], "spread": mask[0], "mean": node[2], "most_different": node[3]}
    return node, {name: graph.add("TestSaveTensor", image=link) for name, link in links.items()}


@pytest.fixture
def picture(client, scene):
    return client.put_image("half.png", with_hole(scene, right_half(scene)))


def test_samples_differ_in_the_hole_and_the_most_different_come_first(client, picture):
    graph = Graph()
    nodes = restoration(graph, picture, num_samples=4)
    node, shown = uncertainty(graph, graph.prompt[nodes.shown.id]["inputs"]["images"], keep=2)
    run = client.run(graph)
    found = {name: client.tensor(run, saved) for name, saved in shown.items()}
    spread = found["spread"][0, ..., 0]
    assert spread[:, :32].max() == 0
    assert spread.max() == 1
    samples = torch.from_numpy(client.images(run, nodes.shown)) / 255
    assert (found["mean"] - samples.mean(0)).abs().max() < 1 / 255
    assert len(found["most_different"]) == 2
    distances = (samples[:, None] - found["most_different"][None]).abs().amax((2, 3, 4))
    assert distances.amin(0).max() < 1 / 255
    light = found["map"].squeeze().sum(-1)
    assert np.corrcoef(light[:, 32:].flatten(), spread[:, 32:].flatten())[0, 1] > 0.8
    assert "levels of 255" in run.outputs[node.id]["text"][0]


def test_residuals_are_told_with_an_observation_and_one_sample_is_refused(client, picture):
    graph = Graph()
    nodes = restoration(graph, picture, num_samples=2)
    node, _ = uncertainty(graph, nodes.sample[1], keep=64, observation=nodes.observation)
    lines = client.run(graph).outputs[node.id]["text"][0].splitlines()
    assert "residual / noise" in lines[2]
    assert sorted(line.split()[0] for line in lines[3:]) == ["1", "2"]
    graph = Graph()
    uncertainty(graph, restoration(graph, picture, num_samples=1).sample[1], keep=1)
    with pytest.raises(HostError, match="num_samples to 2 or more"):
        client.run(graph)
