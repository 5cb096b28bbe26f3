"""Numbers and choices that are none, at every node of a running ComfyUI, as its schemas tell them."""

import json

import pytest

from tests.host.comfy_client import Graph, HostError

NAMES = "VIPaintMakeMask.angle", "VIPaintInpaint.cfg", "VIPaintFitPosterior.mean_rate"
LISTS = ("VIPaintLoadPosterior", "VIPaintLoadLDMCheckpoint")
"""Nodes whose choices are the files on the disk."""


def kind_and_facts(declared):
    """Type of an input, and its default and options."""
    kind, *facts = declared
    facts = facts[0] if facts else {}
    return ("COMBO", {"options": kind} | facts) if isinstance(kind, list) else (kind, facts)


def declared_inputs(client):
    """The required and optional inputs of every node of the pack."""
    nodes = {name: node for name, node in client.object_info().items() if name.startswith("VIPaint")}
    for name, node in nodes.items():
        if node["output"]:
            slots = node["input"]["required"] | node["input"].get("optional", {})
            yield name, {slot: kind_and_facts(declared) for slot, declared in slots.items()}


def refusal(client, name, slots, wrong, value):
    """What ComfyUI says of a node with a wrong value; all that needs a link has one to a value of no use."""
    graph = Graph()
    link = graph.add("TestLinkedValue", value=json.dumps("no such thing"))[0]
    inputs = {}
    for slot, (kind, facts) in slots.items():
        if kind in ("FLOAT", "INT", "COMBO", "STRING", "BOOLEAN"):
            inputs[slot] = facts["default"] if "default" in facts else (facts.get("options") or [""])[0]
        else:
            inputs[slot] = link
    node = graph.add(name, **inputs | {wrong: value})
    graph.add("PreviewAny", source=node[0])
    with pytest.raises(HostError) as caught:
        client.run(graph)
    return str(caught.value)


def test_no_number_of_any_node_may_be_nan(client):
    checked = []
    for name, slots in declared_inputs(client):
        for slot in [slot for slot, (kind, _) in slots.items() if kind == "FLOAT"]:
            assert f"InputError: {slot} is nan" in refusal(client, name, slots, slot, "nan")
            checked.append(f"{name}.{slot}")
    assert {*NAMES} <= {*checked}


def test_no_choice_of_any_node_may_be_another(client):
    """Typed, and through a link, which ComfyUI does not check."""
    for name, slots in declared_inputs(client):
        for slot in [slot for slot, (kind, _) in slots.items() if kind == "COMBO" and name not in LISTS]:
            assert slot in refusal(client, name, slots, slot, "no such choice")
            assert f"InputError: {slot} is 'no such thing'" in refusal(client, name, slots, slot, ["1", 0])
