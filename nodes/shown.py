"""What a running node shows: one bar for all its stages, and texts that are seen without a wire."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_api.v0_0_2 import io, ui
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..vipaint_ops.inference.progress import Progress

_PACK = Path(__file__).parents[1]
_STAGES = {"start": "first draws", "fit": "iterations", "sample": "denoising"}
_PAUSE = 0.5
"""Seconds between two texts of a running stage."""


@dataclass
class _Shown:
    """A node in the graph of the user, with all that it expands into.

    Attributes:
        texts: reports and notices of the prompt, by the part and the place in a list of what they are about.
        fit_share: share of the fit in a prompt that samples, too; None for nodes that do one of them.
        items: pictures or windows, one after the other. It outlives the prompt, as the outputs that were counted do.
    """

    prompt: str = ""
    texts: dict[tuple[str, int], str] = field(default_factory=dict)
    fit_share: float | None = None
    items: int = 1

    def lines(self) -> list[str]:
        """The texts, each once, with the numbers of items of lists."""
        listed = {part for part, index in self.texts if index}
        return list(
            dict.fromkeys(
                f"Item {index + 1}: {text}" if part in listed else text for (part, index), text in self.texts.items()
            )
        )


_shown: dict[str, _Shown] = {}


def with_text(text: str, *outputs: Any) -> io.NodeOutput:
    """Outputs of a node with a text on it, which is in the history of the prompt as well. An empty one shows nothing.

    Nodes that an all-in-one node expands into show their texts on it, one below the other. Those about one of several
    items of a list have its number.
    """
    if not text:
        return io.NodeOutput(*outputs)
    show(text)
    return io.NodeOutput(*outputs, ui=ui.PreviewText(text))


def show(text: str) -> None:
    """Add a text to the node, before it has outputs."""
    node, shown = _executing()
    context = get_executing_context()
    shown.texts[context.node_id, context.list_index or 0] = text
    _send(node, shown.lines())


def plan_items(count: int) -> None:
    """Say how many pictures or windows the node fits and samples, if it does both."""
    _executing()[1].items = count


def plan_fit(share: float) -> None:
    """Say that the node fits and samples, and the share of the fit in its bar."""
    _executing()[1].fit_share = share


class Stages:
    """The stages of a node that fits or samples, as a part of the bar of its node, and the text of the current one.

    Args:
        name: what the node does.
        shares: of the stages of the library in it.
        first: whether it is the fit, of a node that samples, too.
    """

    def __init__(self, name: str, shares: dict[str, float], first: bool = False):
        self._name, self._shares, self._first = name, shares, first
        self._node, self._shown = _executing()
        self._item = get_executing_context().list_index or 0
        self._items = 1 if self._shown.fit_share is None else self._shown.items
        self._began = self._said = time.monotonic()
        self._stage = "loading the model"
        self._say(self._stage)

    def place(self, progress: Progress) -> float:
        """Where the bar stands, from 0 to 1."""
        stages = list(self._shares)
        before = sum(self._shares[stage] for stage in stages[: stages.index(progress.stage)])
        here = before + self._shares[progress.stage] * progress.step / progress.total
        left = (time.monotonic() - self._began) * (1 - here) / here
        step = min(progress.step + 1, progress.total)
        self._stage = f"{_STAGES[progress.stage]}, step {step} of {progress.total}, {_duration(left)} left"
        whole = (min(self._item, self._items - 1) + here) / self._items
        share = self._shown.fit_share
        if share is None:
            return whole
        return share * whole if self._first else share + (1 - share) * whole

    def passes(self, count: int) -> None:
        """Count the passes through the networks; they show that a slow step goes on."""
        if time.monotonic() - self._said > _PAUSE:
            self._say(f"{self._stage} (pass {count})")

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        item = f" {self._item + 1} of {self._items}" if self._items > 1 else ""
        _send(self._node, [*self._shown.lines(), f"{self._name}{item}: {text}"])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _executing() -> tuple[str, _Shown]:
    """The user's node that is executed, and what it shows."""
    context = get_executing_context()
    node = get_progress_state().dynprompt.get_display_node_id(context.node_id)
    shown = _shown.setdefault(node, _Shown())
    if shown.prompt != context.prompt_id:
        shown.prompt, shown.texts, shown.fit_share = context.prompt_id, {}, None
    return node, shown


def _send(node: str, texts: list[str]) -> None:
    server = PromptServer.instance
    # The newer frontend reads texts as Markdown: these keep its lines and columns.
    text = "\n".join(texts).replace("  ", "\N{NO-BREAK SPACE} ").replace("\n", "  \n")
    server.send_progress_text(text, node, server.client_id)


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
