"""Queueing prompts to a running ComfyUI and reading what came of them."""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.host.websocket import PREVIEW, Event, Events

Prompt = dict[str, dict[str, Any]]
Link = list[Any]


class HostError(Exception):
    """A prompt was refused, failed or was interrupted; the message is what a user would see, and where."""


class Interrupted(HostError):
    """A prompt was interrupted."""


@dataclass(frozen=True)
class Node:
    """A node of a :class:`Graph`; ``node[0]`` is a link to its first output."""

    id: str

    def __getitem__(self, output: int) -> Link:
        return [self.id, output]


class Graph:
    """A prompt in the making."""

    def __init__(self) -> None:
        self.prompt: Prompt = {}

    def add(self, class_type: str, **inputs: Any) -> Node:
        """Append a node; inputs are links or widget values."""
        node = Node(str(len(self.prompt) + 1))
        self.prompt[node.id] = {"class_type": class_type, "inputs": inputs}
        return node


def plain(text: str) -> str:
    """A text that was pushed to a node, without the signs that keep its lines and columns in Markdown."""
    return text.replace("  \n", "\n").replace("\N{NO-BREAK SPACE}", " ")


@dataclass(frozen=True)
class Run:
    """What a finished prompt left behind.

    Attributes:
        outputs: what each output node showed, by node id.
        events: what ComfyUI pushed while it ran.
    """

    outputs: dict[str, dict[str, Any]]
    events: list[Event]

    def progress(self) -> dict[str, int]:
        """How many progress messages each node sent, by node id (of nodes made by expansion too)."""
        counts: dict[str, int] = {}
        for event in self.events:
            if event["type"] == "progress":
                counts[event["data"]["node"]] = counts.get(event["data"]["node"], 0) + 1
        return counts

    def executed(self) -> set[str]:
        """Ids of the nodes that ran, not taken from the cache (nodes made by expansion too)."""
        return {e["data"]["node"] for e in self.events if e["type"] == "executing" and e["data"]["node"]}

    def cached(self) -> set[str]:
        """Ids of the prompt's nodes whose outputs ComfyUI still had."""
        return {node for e in self.events if e["type"] == "execution_cached" for node in e["data"]["nodes"]}

    def texts(self) -> dict[str, str]:
        """The last text that was pushed for each node, by node id."""
        pushed = [e["data"] for e in self.events if e["type"] == "progress_text"]
        return {text["node"]: plain(text["text"]) for text in pushed}

    def previews(self) -> int:
        """How many pictures were pushed while it ran."""
        return sum(event is PREVIEW for event in self.events)


class ComfyClient:
    """One user of a ComfyUI at ``url`` whose base directory is ``base``."""

    def __init__(self, url: str, base: Path):
        self.url, self.base, self.id = url, base, uuid.uuid4().hex
        self._events = Events(url, self.id)
        self._started: dict[str, int] = {}

    def close(self) -> None:
        """Hang up."""
        self._events.close()

    def queue(self, graph: Graph) -> str:
        """Queue a prompt and return its id.

        Raises:
            HostError: ComfyUI refused the prompt, or a part of it.
        """
        position = len(self._events)
        try:
            answer = self._post("/prompt", {"prompt": graph.prompt, "client_id": self.id})
        except HTTPError as error:
            raise HostError(_refusal(json.load(error))) from error
        if answer["node_errors"]:
            raise HostError(_refusal(answer))
        self._started[answer["prompt_id"]] = position
        return answer["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 600) -> dict[str, Any]:
        """Wait until the prompt has ended, in whatever way, and return its history entry.

        Raises:
            TimeoutError: it did not end; it was interrupted.
        """

        def ended(event: Event) -> bool:
            data = event["data"]
            return event["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id

        if self._events.wait(ended, self._started[prompt_id], timeout) is None:
            self.interrupt()
            raise TimeoutError(f"the prompt did not end in {timeout} s; see ComfyUI's log")
        return self._get(f"/history/{prompt_id}")[prompt_id]

    def result(self, prompt_id: str, timeout: float = 600) -> Run:
        """Wait for a queued prompt.

        Raises:
            HostError: a node failed.
            Interrupted: it was interrupted.
        """
        entry = self.wait(prompt_id, timeout)
        for kind, data in entry["status"]["messages"]:
            if kind == "execution_interrupted":
                raise Interrupted(f"interrupted in node {data['node_id']} ({data['node_type']})")
            if kind == "execution_error":
                where = f"node {data['node_id']} ({data['node_type']})"
                raise HostError(f"{where}: {data['exception_type']}: {data['exception_message']}")
        return Run(entry["outputs"], self._events.since(self._started[prompt_id]))

    def run(self, graph: Graph, timeout: float = 600) -> Run:
        """Queue a prompt and wait for it; raises as :meth:`queue` and :meth:`result` do."""
        return self.result(self.queue(graph), timeout)

    def wait_for_start(self, prompt_id: str, timeout: float = 60) -> None:
        """Wait until ComfyUI has begun with the prompt.

        Raises:
            TimeoutError: it has not.
        """

        def started(event: Event) -> bool:
            return event["type"] == "execution_start" and event["data"]["prompt_id"] == prompt_id

        if self._events.wait(started, self._started[prompt_id], timeout) is None:
            raise TimeoutError(f"the prompt did not start in {timeout} s")

    def wait_for_progress(self, prompt_id: str, node: Node, steps: int = 1, timeout: float = 300) -> None:
        """Wait until ``node`` (or a node that it expanded into) has reported ``steps`` steps.

        Raises:
            TimeoutError: it did not, or the prompt ended before.
        """

        def reached(event: Event) -> bool:
            data = event["data"]
            if event["type"] == "executing" and data["node"] is None:
                return True
            return event["type"] == "progress" and _is_part(data["node"], node) and data["value"] >= steps

        event = self._events.wait(reached, self._started[prompt_id], timeout)
        if event is None or event["type"] == "executing":
            raise TimeoutError(f"node {node.id} reported no step {steps}")

    def interrupt(self) -> None:
        """Stop the running prompt."""
        self._post("/interrupt", {})

    def clear_history(self) -> None:
        """Forget the ended prompts, which take memory."""
        self._post("/history", {"clear": True})

    def object_info(self) -> dict[str, Any]:
        """Schemas of all nodes."""
        return self._get("/object_info")

    def version(self) -> tuple[int, ...]:
        """ComfyUI's version."""
        return tuple(int(part) for part in self._get("/system_stats")["system"]["comfyui_version"].split("."))

    def put_image(self, name: str, pixels: np.ndarray) -> str:
        """Write ``[height, width, 3 or 4]`` 8-bit pixels to the input folder, for LoadImage."""
        Image.fromarray(pixels).save(self.base / "input" / name)
        return name

    def images(self, run: Run, node: Node) -> np.ndarray:
        """The pictures that a SaveImage or PreviewImage node showed, ``[batch, height, width, channels]``, 8-bit."""
        files = []
        for image in run.outputs[node.id]["images"]:
            with urlopen(f"{self.url}/view?{urlencode(image)}", timeout=30) as answer:
                files.append(np.asarray(Image.open(io.BytesIO(answer.read()))))
        return np.stack(files)

    def tensor(self, run: Run, node: Node) -> Tensor:
        """What a TestSaveTensor node wrote, of a list the first."""
        return self.tensors(run, node)[0]

    def tensors(self, run: Run, node: Node) -> list[Tensor]:
        """What a TestSaveTensor node wrote, for each item of a list."""
        return [load_file(self.base / "output" / file)["value"] for file in run.outputs[node.id]["files"]]

    def report(self, run: Run, node: Node) -> dict[str, Any]:
        """What a reporting test node found."""
        return run.outputs[node.id]["report"][0]

    def _get(self, path: str) -> Any:
        with urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def _post(self, path: str, content: dict[str, Any]) -> Any:
        request = Request(self.url + path, json.dumps(content).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")


def _is_part(node_id: str, node: Node) -> bool:
    return node_id == node.id or node_id.startswith(f"{node.id}.")


def _refusal(answer: dict[str, Any]) -> str:
    lines = [f"{answer['error']['message']}: {answer['error']['details']}"] if "error" in answer else []
    for node_id, found in answer["node_errors"].items():
        lines += [f"node {node_id} ({found['class_type']}): {e['message']}: {e['details']}" for e in found["errors"]]
    return "\n".join(lines)
