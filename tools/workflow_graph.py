"""Graphs in the format of ComfyUI's browser interface, built from node schemas and laid out in columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.schema_snapshot import WIDGET_TYPES, Schemas

_MUTED = 2
WIDTH, _PADDING, _GROUP_GAP = 290, 20, 40
_ABOVE_FIRST, _BETWEEN = 80, 60
"""Room for the titles that the browser draws above groups and nodes."""
_MARGIN, _SLOT, _WIDGET, _BADGE, _TEXT_LINE, _TEXT_BOX, _PICTURE = 14, 20, 28, 24, 8, 82, 270
"""Heights in the newer rendering of nodes, which are those of the classic one or more."""
_SHOW_PICTURES = ("LoadImage", "PreviewImage", "SaveImage")
_SHOWN_MARGIN, _SHOWN_LINE = 20, 16
_SHOWN_LINES = {
    "VIPaintCompare": 6,
    "VIPaintCropForInpaint": 3,
    "VIPaintDeblur": 10,
    "VIPaintEstimateNoiseLevel": 3,
    "VIPaintFitPosterior": 4,
    "VIPaintInpaint": 10,
    "VIPaintMakeMask": 3,
    "VIPaintSamplePosterior": 4,
    "VIPaintSavePosterior": 3,
    "VIPaintSuperResolve": 10,
}
"""Nodes that show a text after a run, and the lines that have room in them; the browser's least is 3."""
_BELOW = {
    **dict.fromkeys(("VIPaintCompositeObserved", "VIPaintModelSize", "VIPaintObserveInpaint"), 68),
    **dict.fromkeys(("SamplerCustomAdvanced", "VIPaintFitPosterior", "VIPaintSamplePosterior"), 240),
    **dict.fromkeys(("VIPaintDeblur", "VIPaintInpaint", "VIPaintSuperResolve"), 240),
}
"""Room below nodes that grow: by a text where something is amiss, or by the previews of a run."""
_TALLEST = 1200
"""Of a column; the next node begins another one."""
_NOTE_MARGIN, _LETTERS_A_LINE, _LINE = 34, 48, 20
_NOTE_COLOURS = {"color": "#432", "bgcolor": "#653"}
_MODEL_FOLDERS = {
    "CheckpointLoaderSimple": "checkpoints",
    "CLIPLoader": "text_encoders",
    "ControlNetLoader": "controlnet",
    "DualCLIPLoader": "text_encoders",
    "LoraLoader": "loras",
    "UNETLoader": "diffusion_models",
    "UpscaleModelLoader": "upscale_models",
    "VAELoader": "vae",
}


Point = tuple[int, int]


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

    @property
    def id(self) -> int:
        """Its id in the workflow."""
        return self._entry["id"]

    @property
    def position(self) -> Point:
        """Its upper left corner."""
        left, top = self._entry["pos"]
        return left, top

    def slot(self, name: str) -> int:
        """The place of an input."""
        return [socket["name"] for socket in self._entry["inputs"]].index(name)

    def __getitem__(self, name: str) -> Output:
        for slot, output in enumerate(self._entry["outputs"]):
            if output["name"] == name:
                return Output(self._entry, slot, output["type"])
        raise KeyError(f"{self._entry['type']} has no output {name!r}")


class Workflow:
    """A graph in the format of ComfyUI's browser interface, laid out as it is built: groups of columns of nodes."""

    def __init__(self, schemas: Schemas):
        self._schemas = schemas
        self._nodes: list[dict[str, Any]] = []
        self._links: list[list[Any]] = []
        self._groups: list[dict[str, Any]] = []
        self._routes: dict[int, tuple[Point, ...]] = {}
        self._left = self._top = 0

    def group(self, title: str, below: bool = False) -> None:
        """Begin a group to the right of the others, or below the last one."""
        left = top = 0
        if self._groups:
            x, y, _, height = self._groups[-1]["bounding"]
            right = max(x + width for x, _, width, _ in (group["bounding"] for group in self._groups))
            left, top = (x, y + height + _GROUP_GAP) if below else (right + _GROUP_GAP, 0)
        group = {"id": len(self._groups) + 1, "title": title, "bounding": [left, top, _PADDING, 0]}
        self._groups.append(group | {"color": "#3f789e", "font_size": 24, "flags": {}})
        self.column()

    def column(self) -> None:
        """Begin a column of nodes within the group."""
        bounding = self._groups[-1]["bounding"]
        self._left, self._top = bounding[0] + bounding[2], bounding[1] + _ABOVE_FIRST
        bounding[2] += WIDTH + _PADDING

    def frame(self, title: str, left: int, top: int, width: int) -> None:
        """Begin a group of that width at a place of its own; :meth:`place` puts nodes into it."""
        group = {"id": len(self._groups) + 1, "title": title, "bounding": [left, top, width, 0]}
        self._groups.append(group | {"color": "#3f789e", "font_size": 24, "flags": {}})

    def place(self, left: int, top: int) -> None:
        """The next node is put here, those after it below."""
        self._left, self._top = left, top

    @property
    def bottom(self) -> int:
        """Lower edge of the last group."""
        _, top, _, height = self._groups[-1]["bounding"]
        return top + height

    def route(self, node: Node, name: str, points: Sequence[Point]) -> None:
        """Lead the link of a node's input through points; links of one output share those that they begin with."""
        self._routes[node._entry["inputs"][node.slot(name)]["link"]] = tuple(points)

    def note(self, text: str) -> None:
        """A note for the reader, in Markdown."""
        lines = sum(1 + len(line) // _LETTERS_A_LINE for line in text.splitlines())
        entry = self._place("MarkdownNote", _NOTE_MARGIN + _LINE * lines)
        entry |= {"title": "Note", "widgets_values": [text]} | _NOTE_COLOURS

    def add(
        self,
        type: str,
        /,
        *,
        title: str = "",
        muted: bool = False,
        downloads: Sequence[str] = (),
        **inputs: Output | Any,
    ) -> Node:
        """A node below the last one.

        Args:
            muted: not run until the user asks for it.
            downloads: addresses of the files that the node's first widgets name; the browser offers those that lack.
            inputs: links to other nodes' outputs, and widget values; widgets not given keep their defaults.

        Raises:
            KeyError: an input that the node does not have, or lacks here.
        """
        schema = self._schemas[type]
        sockets = [slot for slot in schema["inputs"] if slot["type"] not in WIDGET_TYPES]
        widgets = [slot for slot in schema["inputs"] if slot["type"] in WIDGET_TYPES]
        values: list[Any] = []
        for widget in widgets:
            given = inputs.get(widget["name"])
            values.append(
                _default(widget) if given is None or isinstance(given, Output) else inputs.pop(widget["name"])
            )
            values += ["fixed"] * bool(widget.get("control_after_generate"))
            values += ["image"] * bool(widget.get("image_upload"))
        entry = self._place(type, _height(type, max(len(sockets), len(schema["outputs"])), widgets))
        entry["outputs"] = [output | {"links": []} for output in schema["outputs"]]
        # The browser's order: sockets, then a socket for every widget.
        entry["inputs"] = [self._socket(slot, inputs, entry["id"], position) for position, slot in enumerate(sockets)]
        for position, widget in enumerate(widgets, len(sockets)):
            socket = _widget_socket(widget)
            if widget["name"] in inputs:
                socket["link"] = self.link(inputs.pop(widget["name"]), entry["id"], position)
            entry["inputs"].append(socket)
        entry["widgets_values"] = values
        if inputs:
            raise KeyError(f"{type} has no inputs {', '.join(inputs)}")
        if title:
            entry["title"] = title
        if muted:
            entry["mode"] = _MUTED
        if downloads:
            entry["properties"]["models"] = [
                {"name": name, "url": url, "directory": _MODEL_FOLDERS[type]}
                for name, url in zip(values, downloads, strict=False)
            ]
        return Node(entry)

    def link(self, source: Output, node: int, slot: int) -> int:
        """Join an output to a slot of the node with that id; returns the link's number."""
        number = len(self._links) + 1
        self._links.append([number, source.node["id"], source.slot, node, slot, source.type])
        source.node["outputs"][source.slot]["links"].append(number)
        return number

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
            "extra": self._extra(),
            "version": 0.4,
        }

    def _extra(self) -> dict[str, Any]:
        """The points of routed links, as the browser saves them: each with the one before, and the links through it."""
        numbers: dict[tuple[Any, ...], int] = {}
        reroutes: list[dict[str, Any]] = []
        for number, source, slot, *_ in self._links:
            points = self._routes.get(number, ())
            for count, point in enumerate(points, 1):
                key = (source, slot, *points[:count])
                if key not in numbers:
                    numbers[key] = len(numbers) + 1
                    parent = {"parentId": numbers[key[:-1]]} if count > 1 else {}
                    reroutes.append({"id": numbers[key], **parent, "pos": list(point), "linkIds": []})
                reroutes[numbers[key] - 1]["linkIds"].append(number)
        if not reroutes:
            return {}
        ends = {number: reroute["id"] for reroute in reroutes for number in reroute["linkIds"]}
        return {"reroutes": reroutes, "linkExtensions": [{"id": k, "parentId": v} for k, v in sorted(ends.items())]}

    def _place(self, type: str, height: int) -> dict[str, Any]:
        needed, bounding = height + _BELOW.get(type, 0), self._groups[-1]["bounding"]
        if self._top + needed > bounding[1] + _TALLEST:
            self.column()
        entry: dict[str, Any] = {
            "id": len(self._nodes) + 1,
            "type": type,
            "pos": [self._left, self._top],
            "size": [WIDTH, height],
            "flags": {},
            "order": len(self._nodes),
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "properties": {"Node name for S&R": type},
        }
        self._nodes.append(entry)
        self._top += needed
        bounding[3] = max(bounding[3], self._top + _PADDING - bounding[1])
        self._top += _BETWEEN
        return entry

    def _socket(self, slot: dict[str, Any], inputs: dict[str, Any], node: int, position: int) -> dict[str, Any]:
        entry = {"name": slot["name"], "type": slot["type"], "link": None}
        if slot["optional"]:
            entry["shape"] = 7
            if slot["name"] not in inputs:
                return entry
        entry["link"] = self.link(inputs.pop(slot["name"]), node, position)
        return entry


def _height(type: str, rows: int, widgets: list[dict[str, Any]]) -> int:
    """Of a node with so many rows of sockets, in either rendering, with the picture or text that it will show."""
    texts = sum(widget["type"] == "STRING" for widget in widgets)
    boxes = sum(bool(widget.get("multiline")) for widget in widgets)
    height = _MARGIN + _SLOT * rows + _WIDGET * len(widgets) + _BADGE + _TEXT_LINE * texts + _TEXT_BOX * boxes
    if type in _SHOWN_LINES:
        height += _SHOWN_MARGIN + _SHOWN_LINE * _SHOWN_LINES[type]
    return height + _PICTURE * (type in _SHOW_PICTURES)


def _default(widget: dict[str, Any]) -> Any:
    return widget["default"] if "default" in widget else widget["options"][0]


def _widget_socket(widget: dict[str, Any]) -> dict[str, Any]:
    return {"name": widget["name"], "type": widget["type"], "widget": {"name": widget["name"]}, "link": None}
