"""Writes the subgraph blueprints: ``python -m tools.make_subgraphs`` regenerates ``subgraphs/*.json``.

ComfyUI lists a blueprint in its node library under the file's name, and adds it as one node with a graph inside. Each
function lays such a graph out. It is given a node whose outputs are the inputs of the subgraph.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tools.schema_snapshot import CORE_SNAPSHOT, SNAPSHOT, Schemas
from tools.workflow_graph import Node, Output, Workflow

SUBGRAPHS = Path(__file__).parent.parent / "subgraphs"
_INSIDE, _OUTSIDE = -10, -20
"""Ids that the browser gives to the inputs and to the outputs of a subgraph."""
_MODEL = {"model": "MODEL", "positive": "CONDITIONING", "vae": "VAE"}
_SIDE, _SIDE_WIDTH = 200, 120
_LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


class Inner(NamedTuple):
    """What of an inner graph is seen from outside: an output, and widgets as pairs of a node and a name."""

    output: Output
    widgets: list[tuple[Node, str]]


@dataclass(frozen=True)
class Blueprint:
    """A subgraph of the node library: its name, its inputs' types by name, and its inner graph."""

    name: str
    category: str
    description: str
    aliases: tuple[str, ...]
    inputs: dict[str, str]
    build: Callable[[Workflow, Node], Inner]


def remove_object(flow: Workflow, given: Node) -> Inner:
    """A grown mask, then the all-in-one node."""
    grown = flow.add("GrowMask", mask=given["mask"], expand=6, tapered_corners=True)
    flow.column()
    inpaint = flow.add(
        "VIPaintInpaint",
        **{name: given[name] for name in (*_MODEL, "image")},
        mask=grown["MASK"],
        num_samples=2,
        feather=8,
    )
    shown = ("num_samples", "seed", "control_after_generate", "preset", "cfg", "feather")
    return Inner(inpaint["images"], [(grown, "expand"), *((inpaint, name) for name in shown)])


def deblur(flow: Workflow, given: Node) -> Inner:
    """The noise level of the photograph, then the all-in-one node."""
    noise = flow.add("VIPaintEstimateNoiseLevel", image=given["image"], vae=given["vae"])
    flow.column()
    restored = flow.add(
        "VIPaintDeblur",
        **{name: given[name] for name in (*_MODEL, "image")},
        noise_level=noise["noise_level"],
        num_samples=2,
    )
    shown = ("blur", "kernel_size", "std", "angle", "num_samples", "seed", "control_after_generate", "preset", "cfg")
    return Inner(restored["images"], [(restored, name) for name in shown])


ALL = (
    Blueprint(
        "Remove an Object (VIPaint)",
        "Image generation and editing/Inpaint image",
        "Fills the masked area of an image with several different samples. Any image model, no inpainting version "
        "needed. The mask grows first, so that the edge of the object goes with it.",
        ("remove object", "object removal", "eraser", "cleanup", "fill", "inpaint"),
        _MODEL | {"image": "IMAGE", "mask": "MASK"},
        remove_object,
    ),
    Blueprint(
        "Deblur a Photograph (VIPaint)",
        "Image Tools/Sharpen",
        "Restores a photograph that is out of focus or shaken: several samples that agree with it. Its noise level is "
        "estimated.",
        ("deblur", "unblur", "sharpen", "refocus", "restore", "old photo"),
        _MODEL | {"image": "IMAGE"},
        deblur,
    ),
)


def as_json(blueprint: Blueprint, schemas: Schemas) -> dict[str, Any]:
    """What the browser loads: a workflow of one node, which is the subgraph."""
    slots = [{"name": name, "type": type, "links": []} for name, type in blueprint.inputs.items()]
    flow = Workflow(schemas)
    flow.group(blueprint.name)
    output, widgets = blueprint.build(flow, Node({"id": _INSIDE, "type": blueprint.name, "outputs": slots}))
    result = {"name": "images", "type": output.type, "links": [flow.link(output, _OUTSIDE, 0)]}
    inner = flow.as_json()
    definition = {
        "id": _identity(blueprint.name),
        "version": 1,
        "state": {
            "lastNodeId": inner["last_node_id"],
            "lastLinkId": inner["last_link_id"],
            "lastGroupId": 0,
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": blueprint.name,
        "category": blueprint.category,
        "description": blueprint.description,
        "inputNode": _side(_INSIDE, -_SIDE, len(slots)),
        "outputNode": _side(_OUTSIDE, inner["groups"][0]["bounding"][2] + _SIDE - _SIDE_WIDTH, 1),
        "inputs": [_slot(blueprint.name, slot) for slot in slots],
        "outputs": [_slot(blueprint.name, result)],
        "widgets": [],
        "nodes": inner["nodes"],
        "groups": [],
        "links": [dict(zip(_LINK, link, strict=True)) for link in inner["links"]],
        "extra": {},
    }
    return {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [_node(blueprint.name, slots, result, widgets)],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [definition]},
        "extra": {
            "BlueprintDescription": blueprint.description,
            "BlueprintSearchAliases": list(blueprint.aliases),
        },
    }


def _node(
    name: str, slots: list[dict[str, Any]], result: dict[str, Any], widgets: list[tuple[Node, str]]
) -> dict[str, Any]:
    return {
        "id": 1,
        "type": _identity(name),
        "pos": [0, 0],
        "size": [290, 14 + 20 * len(slots) + 28 * len(widgets)],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [{"name": slot["name"], "type": slot["type"], "link": None} for slot in slots],
        "outputs": [result | {"links": []}],
        "title": name,
        "properties": {"proxyWidgets": [[str(node.id), widget] for node, widget in widgets]},
        "widgets_values": [],
    }


def _side(number: int, left: int, slots: int) -> dict[str, Any]:
    return {"id": number, "bounding": [left, 0, _SIDE_WIDTH, 40 + 20 * slots]}


def _slot(name: str, slot: dict[str, Any]) -> dict[str, Any]:
    identity = _identity(f"{name}/{slot['type']}/{slot['name']}")
    return {"id": identity, "name": slot["name"], "type": slot["type"], "linkIds": slot["links"]}


def _identity(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def main() -> None:
    """Write every blueprint."""
    schemas = json.loads(SNAPSHOT.read_text()) | json.loads(CORE_SNAPSHOT.read_text())
    SUBGRAPHS.mkdir(exist_ok=True)
    for blueprint in ALL:
        text = json.dumps(as_json(blueprint, schemas), indent=1) + "\n"
        (SUBGRAPHS / f"{blueprint.name}.json").write_text(text)


if __name__ == "__main__":
    main()
