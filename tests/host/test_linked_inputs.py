"""Links into inputs that ComfyUI hands to a node's hooks before it runs, when a link has no value yet."""

import json

import pytest

from tests.host.comfy_client import Graph, HostError
from tests.host.graphs import restoration, right_half, sample, with_hole

PRIMITIVES = {"STRING": "PrimitiveString", "INT": "PrimitiveInt", "FLOAT": "PrimitiveFloat"}
SETTINGS = {"iterations": 0, "keypoints": "0.55, 0.4"}


@pytest.fixture(scope="module")
def picture(client, scene):
    return client.put_image("linked.png", with_hole(scene, right_half(scene)))


@pytest.fixture(scope="module")
def saved(client, picture):
    """A posterior in the output folder, by its name in Load Posterior."""
    graph = Graph()
    nodes = restoration(graph, picture, SETTINGS)
    node = graph.add("VIPaintSavePosterior", posterior=nodes.fit[0], filename_prefix="vipaint/linked")
    return "output: " + client.run(graph).outputs[node.id]["text"][0]


@pytest.fixture
def graph(picture, saved):
    """A prompt with every node that has hooks."""
    graph = Graph()
    nodes = restoration(graph, picture, SETTINGS)
    loaded = graph.add("VIPaintLoadPosterior", file=saved)
    resampled = sample(graph, loaded[0], nodes.guider, nodes.loader[1], nodes.observation)
    graph.add("TestSaveTensor", latent=resampled[0])
    return graph


def hooks(client):
    """The inputs that each node's hooks take, by node id."""
    graph = Graph()
    reported = graph.add("TestHooks")
    return client.report(client.run(graph), reported)


def link(client, graph, name, slot, value=None):
    """Move an input's value to a node of its own, and link the two."""
    (node,) = (node for node in graph.prompt.values() if node["class_type"] == name)
    schema = client.object_info()[name]["input"]
    kind = (schema["required"] | schema.get("optional", {}))[slot][0]
    value = node["inputs"][slot] if value is None else value
    if isinstance(kind, str) and kind in PRIMITIVES:
        source = graph.add(PRIMITIVES[kind], value=value)
    else:
        source = graph.add("TestLinkedValue", value=json.dumps(value))
    node["inputs"][slot] = source[0]


def test_every_input_of_every_hook_can_be_linked(client, graph):
    taken = hooks(client)
    missing = taken.keys() - {node["class_type"] for node in graph.prompt.values()}
    assert not missing, "add them to the prompt of this test"
    assert {"VIPaintFitPosterior", "VIPaintLoadPosterior"} <= taken.keys()
    for name, slots in taken.items():
        for slot in slots:
            link(client, graph, name, slot)
    client.run(graph)


@pytest.mark.parametrize(
    ("name", "slot", "value"),
    [
        ("VIPaintFitPosterior", "keypoints", "0.4, 0.55"),
        ("VIPaintFitPosterior", "keypoints", "early, late"),
        ("VIPaintLoadPosterior", "file", "output: missing.safetensors"),
        ("VIPaintLoadPosterior", "file", "output: ../secret.safetensors"),
    ],
)
def test_a_wrong_value_is_refused_linked_or_not(client, graph, name, slot, value):
    (node,) = (node for node in graph.prompt.values() if node["class_type"] == name)
    kept, node["inputs"][slot] = node["inputs"][slot], value
    with pytest.raises(HostError, match=f"{name}.*{slot}"):
        client.run(graph)
    node["inputs"][slot] = kept
    link(client, graph, name, slot, value)
    with pytest.raises(HostError, match=f"{name}.*InputError: {slot}"):
        client.run(graph)


def test_broken_files_break_no_schema(client, graph, saved):
    for folder in (client.base / "output" / "vipaint", client.base / "models" / "vipaint"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dangling.safetensors").symlink_to(folder / "gone")
        (folder / "loop").symlink_to(folder.parent)
    kind, *settings = client.object_info()["VIPaintLoadPosterior"]["input"]["required"]["file"]
    options = kind if isinstance(kind, list) else settings[0]["options"]
    assert saved in options
    assert not [option for option in options if "dangling" in option]
    client.run(graph)


def test_a_file_that_is_newer_than_the_list_is_loaded(client, graph, saved):
    (node,) = (node for node in graph.prompt.values() if node["class_type"] == "VIPaintLoadPosterior")
    client.object_info()
    folder = client.base / "models" / "vipaint"
    folder.mkdir(parents=True, exist_ok=True)
    source = client.base / "output" / saved.removeprefix("output: ")
    (folder / "shared.safetensors").write_bytes(source.read_bytes())
    node["inputs"]["file"] = "shared.safetensors"
    client.run(graph)
