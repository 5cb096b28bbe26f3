"""The prompt that ComfyUI's browser interface makes of a workflow."""

from __future__ import annotations

from typing import Any

from tools.schema_snapshot import WIDGET_TYPES, Schemas, saved_values

NOTE = "MarkdownNote"
"""The one node that exists in the browser only."""
MUTED, OPTIONAL = 2, 7
"""A node's mode and an input's shape, as the browser saves them."""

Prompt = dict[str, dict[str, Any]]


def as_prompt(flow: dict[str, Any], schemas: Schemas) -> Prompt:
    """Nodes that run, by id, with values and links; links from muted nodes are left out."""
    running = {node["id"]: node for node in flow["nodes"] if node["type"] != NOTE and node["mode"] != MUTED}
    sources = {number: [str(source), slot] for number, source, slot, *_ in flow["links"] if source in running}
    prompt = {}
    for id, node in running.items():
        links = {slot["name"]: sources[slot["link"]] for slot in node["inputs"] if slot["link"] in sources}
        prompt[str(id)] = {"class_type": node["type"], "inputs": _widgets(node, schemas) | links}
    return prompt


def _widgets(node: dict[str, Any], schemas: Schemas) -> dict[str, Any]:
    values, found = iter(node["widgets_values"]), {}
    for slot in schemas[node["type"]]["inputs"]:
        if slot["type"] in WIDGET_TYPES:
            found[slot["name"]], *_ = [next(values) for _ in range(saved_values(slot))]
    return found
