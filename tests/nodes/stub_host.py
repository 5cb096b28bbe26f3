"""The nodes of the pack without ComfyUI: stand-ins for what they import of it, enough for schemas and pure nodes."""

from __future__ import annotations

import asyncio
import functools
import importlib
import sys
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

NAME = "vipaint_without_host"
_HOST = ("comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "server")


class Input:
    """An input of any kind; what is not given is None."""

    def __init__(self, id: str, optional: bool = False, **given: Any):
        self.id, self.optional = id, optional
        self.extra_dict: dict[str, Any] = {}
        self.min = self.max = self.options = self.default = None
        vars(self).update(given)

    def get_io_type(self) -> str:
        return self.io_type


@dataclass
class Schema:
    node_id: str
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    display_name: str = ""
    category: str = ""
    description: str = ""
    search_aliases: list[str] = field(default_factory=list)
    is_input_list: bool = False
    is_output_node: bool = False
    enable_expand: bool = False


class NodeOutput:
    def __init__(self, *args: Any, ui: Any = None, expand: Any = None):
        self.args, self.ui, self.expand = args, ui, expand


class Output:
    """An output of any kind."""

    def __init__(self, id: str, **given: Any):
        self.id = id


def _kind(io_type: str) -> type:
    return type(io_type, (), {"Input": type("Input", (Input,), {"io_type": io_type}), "Output": Output})


_KINDS = ("Int", "Float", "String", "Boolean", "Combo", "Image", "Mask", "Latent", "Model", "Vae", "Guider", "Sampler")
_IO = SimpleNamespace(
    **{name: _kind(name.upper()) for name in (*_KINDS, "Conditioning")},
    AnyType=_kind("*"),
    Custom=_kind,
    Schema=Schema,
    NodeOutput=NodeOutput,
    ComfyNode=type("ComfyNode", (), {}),
)


_SERVER = SimpleNamespace(add_on_prompt_handler=lambda _: None, send_progress_text=lambda *_: None, client_id="")
_PROGRESS = SimpleNamespace(dynprompt=SimpleNamespace(get_display_node_id=lambda node: node))


class GraphBuilder:
    """Nodes that a node expands into, by class and inputs."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, dict[str, Any]]] = []

    def node(self, kind: str, **inputs: Any) -> Any:
        self.nodes.append((kind, inputs))
        number = str(len(self.nodes))
        return SimpleNamespace(out=lambda place: [number, place])

    def finalize(self) -> list[tuple[str, dict[str, Any]]]:
        return self.nodes


_GIVEN: dict[tuple[str, str], Any] = {
    ("comfy_api.v0_0_2", "io"): _IO,
    ("comfy_api.v0_0_2", "ui"): SimpleNamespace(PreviewText=str),
    ("comfy_execution.graph_utils", "GraphBuilder"): GraphBuilder,
    ("comfy_execution.progress", "get_progress_state"): lambda: _PROGRESS,
    ("comfy_execution.utils", "get_executing_context"): lambda: SimpleNamespace(
        node_id="1", list_index=0, prompt_id="prompt"
    ),
    ("server", "PromptServer"): SimpleNamespace(instance=_SERVER),
    ("folder_paths", "models_dir"): "models",
    ("folder_paths", "add_model_folder_path"): lambda *_: None,
    ("folder_paths", "get_folder_paths"): lambda _: [],
    ("folder_paths", "get_output_directory"): lambda: "output",
    ("folder_paths", "get_filename_list"): lambda _: [],
    ("folder_paths", "get_full_path"): lambda *_: None,
}


class _Module(ModuleType):
    """A module that has any class, and what is given above."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _GIVEN.get((self.__name__, name)) or type(name, (), {})
        setattr(self, name, value)
        return value


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in _HOST else None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        pass


@functools.cache
def nodes() -> dict[str, Any]:
    """All nodes of the pack by their id, as the extension registers them."""
    finder, before = _Finder(), set(sys.modules)
    package = sys.modules[NAME] = ModuleType(NAME)
    package.__path__ = [str(Path(__file__).parents[2])]
    sys.meta_path.insert(0, finder)
    try:
        entry = importlib.import_module(f"{NAME}.nodes")
        found = asyncio.run(asyncio.run(entry.comfy_entrypoint()).get_node_list())
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.split(".")[0] in _HOST:
                del sys.modules[name]
    return {node.define_schema().node_id: node for node in found}


def library(name: str) -> ModuleType:
    """A module of the library as these nodes import it."""
    nodes()
    return importlib.import_module(f"{NAME}.{name}")
