"""What a user sees of a run: one bar from its start to its end, and a text that names cost, stage and step."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.host.comfy_client import Graph, Node, Run, plain
from tests.host.graphs import inpaint, restoration, right_half, with_hole

STAGE = re.compile(r"^(Fit|Sampling) \d of \d: ")


def bar(run: Run, node: Node) -> list[float]:
    """Places of the bar, from 0 to 1, of a node and what it expands into."""
    parts = [e["data"] for e in run.events if e["type"] == "progress"]
    return [part["value"] / part["max"] for part in parts if part["node"].split(".")[0] == node.id]


def texts(run: Run, node: Node) -> list[str]:
    """The last lines of the texts of a node, without repetition."""
    shown = [e["data"] for e in run.events if e["type"] == "progress_text"]
    return list(dict.fromkeys(plain(text["text"]).split("\n")[-1] for text in shown if text["node"] == node.id))


@pytest.fixture
def picture(client, scene):
    return client.put_image("half.png", with_hole(scene, right_half(scene)))


@pytest.fixture
def two_holes(scene):
    """A picture of 192x192 pixels with a hole of 16 pixels at two corners: two windows of the embedded prior."""
    hole = np.zeros((192, 192), dtype=bool)
    hole[8:24, 8:24] = hole[168:184, 168:184] = True
    return with_hole(np.kron(scene, np.ones((3, 3, 1), np.uint8)), hole)


def test_an_all_in_one_node_has_one_bar_for_fit_and_samples(client, picture):
    graph = Graph()
    node, _ = inpaint(graph, picture, num_samples=2, preset="balanced")
    places = bar(client.run(graph), node)
    assert places == sorted(places)
    assert len(set(places)) > 10
    assert places[0] < 0.1
    assert places[-1] == 1


def test_windows_share_the_bar_and_are_counted(client, two_holes):
    picture = client.put_image("two.png", two_holes)
    sampling = {"Sampling 1 of 2: ", "Sampling 2 of 2: "}
    for seed, wanted in (1, {"Fit 1 of 2: ", "Fit 2 of 2: "} | sampling), (2, sampling):
        graph = Graph()
        node, _ = inpaint(graph, picture, num_samples=1, seed=seed)
        run = client.run(graph)
        places = bar(run, node)
        assert places == sorted(places)
        assert places[-1] == 1
        stages = {match[0] for text in texts(run, node) if (match := STAGE.match(text))}
        assert stages == wanted, f"seed {seed}"


def test_the_cost_is_told_before_the_first_step(client, picture):
    graph = Graph()
    node, _ = inpaint(graph, picture, num_samples=4)
    run = client.run(graph)
    kinds = [e["type"] for e in run.events if e["type"] in ("progress", "progress_text")]
    assert kinds.index("progress_text") < kinds.index("progress")
    assert texts(run, node)[0].startswith("Cost (fast): about 11 times an image of KSampler in 28 steps")


def test_a_running_node_names_its_stage_and_a_finished_one_its_report(client, picture):
    graph = Graph()
    nodes = restoration(graph, picture)
    run = client.run(graph)
    for node, name in ((nodes.fit, "Fit"), (nodes.sample, "Sampling")):
        shown = texts(run, node)
        assert shown[0] == f"{name}: loading the model"
        assert shown[-1] == run.outputs[node.id]["text"][0]
        places = bar(run, node)
        assert places == sorted(places)
        assert places[-1] == 1
