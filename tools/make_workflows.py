"""Writes the example workflows: ``python -m tools.make_workflows`` makes ``workflows/*.json`` anew.

Slots, their order and widget values come from the schema snapshots in ``tests/nodes``, so that a workflow cannot
disagree with the nodes. Every group is one column of nodes; columns follow each other from left to right.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from .schema_snapshot import CORE_SNAPSHOT, SNAPSHOT, WIDGET_TYPES, Schemas

WORKFLOWS = Path(__file__).parent.parent / "workflows"
EMBEDDED = "embedded prior (64x64 scenes)"

_MUTED = 2
_WIDTH, _GAP, _COLUMN_GAP, _HEADING = 340, 40, 90, 60
_TITLE, _SLOT, _WIDGET, _TEXT_BOX, _PICTURE = 40, 22, 26, 110, 300
_SHOW_PICTURES = ("LoadImage", "PreviewImage", "SaveImage")
_LETTERS_A_LINE, _LINE = 46, 24
_NOTE_COLOURS = {"color": "#432", "bgcolor": "#653"}


@dataclass(frozen=True)
class Output:
    """One output of a node in a workflow."""

    node: dict[str, Any]
    slot: int
    type: str


class Node:
    """A node in a workflow; ``node["latent"]`` is its output of that name."""

    def __init__(self, entry: dict[str, Any]):
        self._entry = entry

    def __getitem__(self, name: str) -> Output:
        for slot, output in enumerate(self._entry["outputs"]):
            if output["name"] == name:
                return Output(self._entry, slot, output["type"])
        raise KeyError(f"{self._entry['type']} has no output {name!r}")


class Workflow:
    """A graph in the format of ComfyUI's browser interface, laid out as it is built."""

    def __init__(self, schemas: Schemas):
        self._schemas = schemas
        self._nodes: list[dict[str, Any]] = []
        self._links: list[list[Any]] = []
        self._groups: list[dict[str, Any]] = []
        self._top = 0

    def group(self, title: str) -> None:
        """Begin a column to the right of the last."""
        left = self._groups[-1]["bounding"][0] + _WIDTH + 2 * _GAP + _COLUMN_GAP if self._groups else 0
        group = {"id": len(self._groups) + 1, "title": title, "bounding": [left, 0, _WIDTH + 2 * _GAP, 0]}
        self._groups.append(group | {"color": "#3f789e", "font_size": 24, "flags": {}})
        self._top = _HEADING + _GAP

    def note(self, text: str) -> None:
        """A note for the reader, in Markdown."""
        lines = sum(1 + len(line) // _LETTERS_A_LINE for line in text.splitlines())
        entry = self._place("MarkdownNote", _TITLE + _LINE * (lines + 1))
        entry |= {"title": "Note", "widgets_values": [text]} | _NOTE_COLOURS

    def add(
        self, type: str, *, title: str = "", muted: bool = False, download: str = "", **inputs: Output | Any
    ) -> Node:
        """A node below the last one.

        Args:
            muted: not run until the user asks for it.
            download: address of the file that the node's first widget names; the browser offers it where it lacks.
            inputs: links to other nodes' outputs, and widget values; widgets not given keep their defaults.

        Raises:
            KeyError: an input that the node does not have, or lacks here.
        """
        schema = self._schemas[type]
        sockets = [slot for slot in schema["inputs"] if slot["type"] not in WIDGET_TYPES]
        widgets = [slot for slot in schema["inputs"] if slot["type"] in WIDGET_TYPES]
        values: list[Any] = []
        for widget in widgets:
            values.append(inputs.pop(widget["name"]) if widget["name"] in inputs else _default(widget))
            values += ["fixed"] * bool(widget.get("control_after_generate"))
            values += ["image"] * bool(widget.get("image_upload"))
        height = _TITLE + _SLOT * max(len(sockets), len(schema["outputs"])) + _WIDGET * len(values)
        height += _TEXT_BOX * sum(bool(widget.get("multiline")) for widget in widgets)
        entry = self._place(type, height + _PICTURE * (type in _SHOW_PICTURES))
        entry["outputs"] = [output | {"links": []} for output in schema["outputs"]]
        # The browser's order: sockets, then a socket for every widget.
        entry["inputs"] = [self._socket(slot, inputs, entry["id"], position) for position, slot in enumerate(sockets)]
        entry["inputs"] += [_widget_socket(widget) for widget in widgets]
        entry["widgets_values"] = values
        if inputs:
            raise KeyError(f"{type} has no inputs {', '.join(inputs)}")
        if title:
            entry["title"] = title
        if muted:
            entry["mode"] = _MUTED
        if download:
            folder = {"LoraLoader": "loras", "ControlNetLoader": "controlnet", "UpscaleModelLoader": "upscale_models"}
            model = {"name": values[0], "url": download, "directory": folder.get(type, "checkpoints")}
            entry["properties"]["models"] = [model]
        return Node(entry)

    def as_json(self) -> dict[str, Any]:
        """What the browser loads."""
        return {
            "revision": 0,
            "last_node_id": len(self._nodes),
            "last_link_id": len(self._links),
            "nodes": self._nodes,
            "links": self._links,
            "groups": self._groups,
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def _place(self, type: str, height: int) -> dict[str, Any]:
        bounding = self._groups[-1]["bounding"]
        entry: dict[str, Any] = {
            "id": len(self._nodes) + 1,
            "type": type,
            "pos": [bounding[0] + _GAP, self._top],
            "size": [_WIDTH, height],
            "flags": {},
            "order": len(self._nodes),
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "properties": {"Node name for S&R": type},
        }
        self._nodes.append(entry)
        self._top += height + _GAP
        bounding[3] = self._top
        return entry

    def _socket(self, slot: dict[str, Any], inputs: dict[str, Any], node: int, position: int) -> dict[str, Any]:
        entry = {"name": slot["name"], "type": slot["type"], "link": None}
        if slot["optional"]:
            entry["shape"] = 7
            if slot["name"] not in inputs:
                return entry
        source: Output = inputs.pop(slot["name"])
        entry["link"] = len(self._links) + 1
        self._links.append([entry["link"], source.node["id"], source.slot, node, position, source.type])
        source.node["outputs"][source.slot]["links"].append(entry["link"])
        return entry
