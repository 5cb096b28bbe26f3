"""Texts on the nodes themselves: reports and notices, seen without a wire."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfy_api.v0_0_2 import io, ui
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

_PACK = Path(__file__).parents[1]
_shown: dict[str, dict[tuple[str, int], str]] = {}
"""Per node that shows them: the texts of the node, or of its parts, with the place in a list of what they are about."""
_prompt = ""


def with_text(text: str, *outputs: Any) -> io.NodeOutput:
    """Outputs of a node with a text on it, which is in the history of the prompt as well. An empty one shows nothing.

    Nodes that an all-in-one node expands into show their texts on it, one below the other. Those about one of several
    items of a list have its number.
    """
    if not text:
        return io.NodeOutput(*outputs)
    _show(text)
    return io.NodeOutput(*outputs, ui=ui.PreviewText(text))


def _show(text: str) -> None:
    global _prompt
    context, server = get_executing_context(), PromptServer.instance
    if context.prompt_id != _prompt:
        _prompt = context.prompt_id
        _shown.clear()
    node = get_progress_state().dynprompt.get_display_node_id(context.node_id)
    texts = _shown.setdefault(node, {})
    texts[context.node_id, context.list_index or 0] = text
    listed = {part for part, index in texts if index}
    lines = (f"Item {index + 1}: {text}" if part in listed else text for (part, index), text in texts.items())
    server.send_progress_text("\n".join(dict.fromkeys(lines)), node, server.client_id)


@contextmanager
def noticed() -> Iterator[list[str]]:
    """The pack's warnings within the block, as texts, each once; all warnings still reach the log."""
    notices: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = _listening(warnings.showwarning, notices)
        yield notices


def _listening(log: Callable[..., None], notices: list[str]) -> Callable[..., None]:
    def show(message, category, filename, *place):
        notice = f"Notice: {message}"
        if Path(filename).is_relative_to(_PACK) and notice not in notices:
            notices.append(notice)
        log(message, category, filename, *place)

    return show
