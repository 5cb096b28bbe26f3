"""A posterior of the command line in the nodes, and one of the nodes on the command line, with the shipped model."""

import numpy as np
import pytest
from PIL import Image

from tests.host.comfy_client import Graph, HostError
from tests.host.graphs import restoration, right_half, sample, with_hole
from vipaint_ops.cli.main import main
from vipaint_ops.vipaint import HierarchicalPosterior

NOISE = ["--noise-std", "0.05"]


@pytest.fixture
def files(tmp_path, scene):
    """The picture and its mask, white where it is to be painted, as arguments of the command."""
    Image.fromarray(scene).save(tmp_path / "scene.png")
    Image.fromarray(np.where(right_half(scene), 255, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    return ["--image", str(tmp_path / "scene.png"), "--mask", str(tmp_path / "mask.png"), "--white", "fill"]


@pytest.fixture
def picture(client, scene):
    return client.put_image("crossing.png", with_hole(scene, right_half(scene)))


def load(client, nodes, graph, path):
    """Sample from a posterior file that is put into the folder of the models."""
    folder = client.base / "models" / "vipaint"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / path.name).write_bytes(path.read_bytes())
    loaded = graph.add("VIPaintLoadPosterior", file=path.name)
    resampled = sample(graph, loaded[0], nodes.guider, nodes.loader[1], nodes.observation)
    saved = graph.add("TestSaveTensor", image=resampled[1])
    return client.tensor(client.run(graph), saved)


def test_a_posterior_of_the_command_line_is_sampled_in_the_nodes(client, scene, picture, files, tmp_path):
    path = tmp_path / "command.safetensors"
    assert main(["fit", *files, *NOISE, "--preset", "fast", "--iterations", "3", "--posterior", str(path)]) == 0
    graph = Graph()
    images = load(client, restoration(graph, picture, {"iterations": 0}), graph, path)
    known = ~right_half(scene)
    assert np.sqrt(((images.numpy() - scene / 255)[:, known] ** 2).mean()) < 0.1


def test_a_posterior_of_the_nodes_is_sampled_on_the_command_line(client, scene, picture, files, tmp_path):
    graph = Graph()
    nodes = restoration(graph, picture)
    node = graph.add("VIPaintSavePosterior", posterior=nodes.fit[0], filename_prefix="vipaint/crossing")
    path = client.base / "output" / client.run(graph).outputs[node.id]["text"][0]
    out = tmp_path / "out"
    settings = ["--guidance", "pseudo_inverse", "--steps", "4", "--samples", "2"]
    assert main(["sample", *files, *NOISE, *settings, "--posterior", str(path), "--out", str(out)]) == 0
    assert len(list(out.glob("sample_*.png"))) == 2


def test_a_posterior_of_another_file_with_the_same_shapes_is_refused(client, picture, files, tmp_path):
    path = tmp_path / "other.safetensors"
    assert main(["fit", *files, *NOISE, "--preset", "fast", "--iterations", "0", "--posterior", str(path)]) == 0
    posterior = HierarchicalPosterior.load(path)
    posterior.metadata["weights_file"] = "0" * 16
    posterior.save(path)
    graph = Graph()
    nodes = restoration(graph, picture, {"iterations": 0})
    with pytest.raises(HostError, match="fitted for prior"):
        load(client, nodes, graph, path)
