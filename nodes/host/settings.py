"""How a model is loaded and run, and how its run is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ...vipaint_ops.inference.progress import Progress
from .branches import Gradients

CHECKPOINTING = ("auto", "on", "off")


class Display(Protocol):
    """How a node shows the place of its run."""

    def place(self, progress: Progress) -> float:
        """Where its bar stands, from 0 to 1."""

    def passes(self, count: int) -> None:
        """Called after each pass through a network, with their number."""


@dataclass(frozen=True)
class RunSettings:
    """How a model is loaded and run.

    Attributes:
        rows: samples computed together; fewer if they do not fit (:attr:`HostPrior.rows`).
        checkpointing: one of :data:`CHECKPOINTING`; used only with gradients.
        gradients: networks that are differentiated through.
        sigmas: schedule passed to patches of the model; from its largest sigma to 0 by default.
        callback: the host's, for :meth:`HostPrior.report`; a new one by default.
        display: shows where a run is; by default the bar counts the steps of the method.
    """

    rows: int
    checkpointing: str = "auto"
    gradients: Gradients = Gradients.ALL
    sigmas: Tensor | None = None
    callback: Callable[..., None] | None = None
    display: Display | None = None
