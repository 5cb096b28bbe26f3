"""Subgraph blueprints against the schemas of the nodes inside."""

import json

import pytest

from tests.nodes.test_workflows import SCHEMAS
from tools.make_subgraphs import ALL, SUBGRAPHS, as_json


def test_there_is_a_file_for_every_blueprint_and_no_other():
    assert {path.name for path in SUBGRAPHS.iterdir()} == {f"{blueprint.name}.json" for blueprint in ALL}


@pytest.mark.parametrize("blueprint", ALL, ids=lambda blueprint: blueprint.build.__name__)
def test_files_are_what_the_script_makes(blueprint):
    assert json.loads((SUBGRAPHS / f"{blueprint.name}.json").read_text()) == as_json(blueprint, SCHEMAS)


@pytest.mark.parametrize("blueprint", ALL, ids=lambda blueprint: blueprint.build.__name__)
def test_links_join_slots_of_one_type_and_are_known_to_both_ends(blueprint):
    flow = as_json(blueprint, SCHEMAS)
    (outer,), (graph,) = flow["nodes"], flow["definitions"]["subgraphs"]
    nodes = {node["id"]: node for node in graph["nodes"]}
    for link in graph["links"]:
        source = nodes[link["origin_id"]]["outputs"] if link["origin_id"] > 0 else graph["inputs"]
        target = nodes[link["target_id"]]["inputs"] if link["target_id"] > 0 else graph["outputs"]
        output, slot = source[link["origin_slot"]], target[link["target_slot"]]
        assert output["type"] == slot["type"] == link["type"]
        assert link["id"] in output.get("links", output.get("linkIds"))
        assert link["id"] in slot.get("linkIds", [slot.get("link")])
    assert all(slot["linkIds"] for slot in graph["inputs"] + graph["outputs"])
    assert [slot["name"] for slot in outer["inputs"]] == [slot["name"] for slot in graph["inputs"]]


@pytest.mark.parametrize("blueprint", ALL, ids=lambda blueprint: blueprint.build.__name__)
def test_widgets_of_the_outer_node_are_widgets_inside(blueprint):
    flow = as_json(blueprint, SCHEMAS)
    (outer,), (graph,) = flow["nodes"], flow["definitions"]["subgraphs"]
    types = {str(node["id"]): node["type"] for node in graph["nodes"]}
    for node, widget in outer["properties"]["proxyWidgets"]:
        names = {slot["name"] for slot in SCHEMAS[types[node]]["inputs"]} | {"control_after_generate"}
        assert widget in names
