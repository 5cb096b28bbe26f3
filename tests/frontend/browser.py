"""ComfyUI's own frontend in a headless browser: opening graphs, running them, and what is drawn."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from playwright.sync_api import ConsoleMessage, Page

Graph = dict[str, Any]
EMPTY: Graph = {"nodes": [], "links": [], "groups": [], "last_node_id": 0, "last_link_id": 0, "version": 0.4}
PACK = "/extensions/vipaint/"
CHROMIUM = os.environ.get("CHROMIUM_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
VUE_NODES = "Comfy.VueNodes.Enabled"
"""The setting of the newer rendering of nodes."""

_READY = "() => window.app?.extensionManager && app.graph && 'VIPaintInpaint' in LiteGraph.registered_node_types"
_OPEN = """async graph => {
    await app.loadGraphData(graph)
    app.canvas.ds.scale = 0.5
    app.canvas.draw(true, true)
}"""
_RUN = """() => new Promise(resolve => {
    for (const end of ['execution_success', 'execution_error', 'execution_interrupted'])
        app.api.addEventListener(end, ({detail}) => resolve([end, detail.exception_message]), {once: true})
    app.queuePrompt(0)
})"""
_NEWER_BOXES = """() => app.graph.nodes.map(node => {
    const {x, y, width, height} = document.querySelector(`[data-node-id="${node.id}"]`).getBoundingClientRect()
    const {scale, offset} = app.canvas.ds
    return [`${node.id} ${node.type}`, x / scale - offset[0], y / scale - offset[1], width / scale, height / scale]
})"""
_CLASSIC_BOXES = """() => app.graph.nodes.map(node => {
    node.updateArea(app.canvas.ctx)
    return [`${node.id} ${node.type}`, ...node.boundingRect]
})"""
_CUT_OFF = """() => app.graph.nodes.filter(
    node => node.computeSize()[1] > node.size[1] + 1
).map(node => [node.type, node.size[1], node.computeSize()[1]])"""
_UNKNOWN = "() => app.graph.nodes.map(node => node.type).filter(type => !(type in LiteGraph.registered_node_types))"
_TEXTS = """() => app.graph.nodes.map(
    node => [node.type, node.widgets?.find(widget => widget.name === '$$node-text-preview')?.value]
).filter(([_, text]) => text)"""
_GROUPS = "() => app.graph.groups.map(group => [group.title, ...group._bounding])"


@dataclass(frozen=True)
class Box:
    """What a node or group covers, in units of the graph."""

    name: str
    left: float
    top: float
    width: float
    height: float

    def overlaps(self, other: Box) -> bool:
        """Whether both cover some area; half a unit is rounding of the browser."""
        across = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        down = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        return min(across, down) > 0.5

    def holds(self, other: Box) -> bool:
        """Whether the other lies within this one."""
        right, bottom = self.left + self.width - other.left, self.top + self.height - other.top
        return self.left <= other.left and self.top <= other.top and other.width <= right and other.height <= bottom


class Frontend:
    """A page with ComfyUI's frontend.

    Attributes:
        version: of the frontend, such as (1, 49, 6).
        errors: errors that the pack's own files logged or did not catch.
    """

    def __init__(self, page: Page, url: str):
        self.page, self.errors, self._newer = page, list[str](), False
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.errors.extend([error.stack] if PACK in error.stack else []))
        page.goto(url)
        page.wait_for_function(_READY, timeout=120_000)
        page.wait_for_timeout(2000)
        page.keyboard.press("Escape")  # the templates, which a new user is shown
        self.version = tuple(map(int, page.evaluate("window.__COMFYUI_FRONTEND_VERSION__").split(".")))

    def set(self, setting: str, value: Any) -> None:
        """Change one of the frontend's settings."""
        self.page.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [setting, value])

    def render(self, newer: bool) -> None:
        """Draw nodes in the newer or the classic way."""
        self._newer = newer
        self.set(VUE_NODES, newer)

    def open(self, graph: Graph) -> None:
        """Open a workflow and let its nodes take their sizes; from here on, errors are those of this workflow."""
        self.errors.clear()
        self.page.evaluate(_OPEN, graph)
        self.page.wait_for_timeout(1500)

    def run(self) -> None:
        """Run the open workflow to its end.

        Raises:
            AssertionError: it failed.
        """
        self.page.set_default_timeout(600_000)
        end, message = self.page.evaluate(_RUN)
        assert end == "execution_success", message
        self.page.wait_for_timeout(2000)

    def search(self, words: str) -> list[str]:
        """Names that the node search lists for these words, the best first."""
        self._type_into_search(words)
        found = self.page.locator("[data-testid=result-item]").all_inner_texts()
        self.page.keyboard.press("Escape")
        return [text.splitlines()[0] for text in found]

    def add(self, name: str) -> None:
        """Add the node or blueprint that the node search lists first."""
        self._type_into_search(name)
        self.page.keyboard.press("Enter")
        self.page.wait_for_timeout(1000)
        self.page.mouse.click(800, 400)
        self.page.wait_for_timeout(1000)

    def boxes(self) -> list[Box]:
        """The nodes as drawn."""
        return [Box(*box) for box in self.page.evaluate(_NEWER_BOXES if self._newer else _CLASSIC_BOXES)]

    def texts(self) -> dict[str, str]:
        """The texts on the nodes that show one, by type."""
        return dict(self.page.evaluate(_TEXTS))

    def faults(self) -> list[str]:
        """What is wrong with how the open workflow is drawn, a sentence each."""
        boxes = self.boxes()
        groups = [Box(*box) for box in self.page.evaluate(_GROUPS)]
        found = [f"{a.name} overlaps {b.name}" for a, b in combinations(boxes, 2) if a.overlaps(b)]
        found += [f"{box.name} is in no group" for box in boxes if not any(group.holds(box) for group in groups)]
        return found + [f"{type} is unknown" for type in self.page.evaluate(_UNKNOWN)]

    def cut_off(self) -> list[str]:
        """Nodes whose widgets need more height than they have."""
        return [f"{type} has {size}, needs {least}" for type, size, least in self.page.evaluate(_CUT_OFF)]

    def _type_into_search(self, words: str) -> None:
        self.page.mouse.dblclick(800, 500)
        self.page.locator("[data-testid=filter-chips-scroll]").wait_for()
        self.page.keyboard.type(words)
        self.page.wait_for_timeout(1200)

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type == "error" and PACK in f"{message.location['url']} {message.text}":
            self.errors.append(message.text)
