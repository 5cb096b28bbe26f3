"""Lists through nodes that expand into others."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io
from comfy_execution.graph_utils import GraphBuilder


class GatherList(io.ComfyNode):
    """A list as one value."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VIPaintGatherList",
            display_name="Gather List (VIPaint)",
            category="VIPaint/internal",
            description="Part of the all-in-one nodes: collects a list of images or latents. Not for own workflows.",
            inputs=[io.AnyType.Input("values", tooltip="Any values.")],
            outputs=[io.AnyType.Output("gathered", display_name="gathered", tooltip="The list as one value.")],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, values) -> io.NodeOutput:
        return io.NodeOutput(values)


def list_output(kind: Any, name: str, tooltip: str) -> Any:
    """An output that is a list: one item for each item of the inputs."""
    return kind.Output(name, display_name=name, is_output_list=True, tooltip=tooltip)


def expanded(graph: GraphBuilder, *outputs: Any) -> io.NodeOutput:
    """What a node with :func:`list_output` returns for links to nodes of ``graph``.

    The host joins the items of all links to one row of outputs. Gathered, each link has one item, its list.
    """
    links = [graph.node("VIPaintGatherList", values=link).out(0) for link in outputs]
    return io.NodeOutput(*links, expand=graph.finalize())
