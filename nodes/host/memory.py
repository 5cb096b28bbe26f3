"""Memory of a network and of its gradient, and the form in which a batch fits into the free memory."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from .blocks import Block, replaced_forwards

MARGIN = 0.9
"""Share of the free memory that is used: the rest is for fragments."""
BRANCHES = 2
"""Rows of a model for a latent, with classifier-free guidance."""


class Cost(NamedTuple):
    """Memory of a row of a network in bytes.

    Attributes:
        forward: peak of a forward pass without gradient.
        graph: kept from the forward pass to the backward pass.
        inputs: the same if the blocks are recomputed.
        block: graph of the largest block.
        fixed: kept once for all rows, such as copies of weights.
    """

    forward: float
    graph: float = 0.0
    inputs: float = 0.0
    block: float = 0.0
    fixed: float = 0.0

    def scaled(self, share: float) -> Cost:
        """The cost of a row with another area."""
        return Cost(*(share * size for size in self[:4]), self.fixed)

    def total(self, rows: int, recomputed: bool) -> float:
        """Peak of the gradient of a batch."""
        return rows * (self.inputs + self.block) if recomputed else self.fixed + rows * self.graph

    def rows(self, free: float, recomputed: bool) -> int:
        """Rows whose gradient fits into ``free`` bytes."""
        fixed = self.total(0, recomputed)
        return math.floor((free - fixed) / max(self.total(1, recomputed) - fixed, 1))

    def least(self, checkpointing: str) -> float:
        """Peak of the gradient of one row, in the cheapest form that is allowed."""
        return min(self.total(1, recomputed) for recomputed in FORMS[checkpointing])


class Ratios(NamedTuple):
    """Memory of a gradient over the host's estimate for a forward pass: the graph, and with recomputed blocks."""

    graph: float
    recomputed: float


MODEL_GRAPH, DECODER_GRAPH = Ratios(20, 3), Ratios(2.8, 1.2)
"""The largest ratios of SD1.5, SDXL, SD3.5 and Flux (benchmarks/full_size.py), before a network can be measured."""


def usual_cost(forward: float, ratios: Ratios) -> Cost:
    """The cost of a network by its forward pass alone."""
    return Cost(forward, ratios.graph * forward, ratios.recomputed * forward)


FORMS = {"auto": (False, True), "on": (True,), "off": (False,)}
"""Whether blocks may be recomputed, in the order of preference, by the value of ``checkpointing``."""


class Form(NamedTuple):
    """How a batch is run: the rows together, and whether blocks are recomputed in the backward pass."""

    rows: int
    recomputed: bool


def form(cost: Cost, rows: int, free: float, checkpointing: str) -> Form:
    """The fastest form in which the gradient of ``rows`` rows fits into ``free`` bytes; else that of least memory.

    Fewer rows together come before recomputed blocks: one forward pass has several backward passes.
    """
    forms = FORMS[checkpointing]
    for recomputed in forms:
        fitting = min(cost.rows(free, recomputed), rows)
        if fitting >= 1:
            return Form(fitting, recomputed)
    return Form(1, forms[-1])


def in_parts(function: Callable[[Tensor], Tensor], x: Tensor, rows: int) -> Tensor:
    """``function`` of ``rows`` rows of ``x`` at a time; with gradients, a part is recomputed in its backward pass."""
    if rows >= len(x):
        return function(x)
    if torch.is_grad_enabled() and x.requires_grad:
        function = partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([function(part) for part in x.split(rows)])


def measure(function: Callable[[Tensor], Tensor], x: Tensor, network: nn.Module, blocks: Iterable[nn.Module]) -> Cost:
    """The cost of the gradient of ``function`` at ``x``, by one forward pass that keeps no graph; without ``forward``.

    Args:
        x: one row.
        network: its weights are left out; copies of them count as ``fixed``.
        blocks: modules that may be recomputed.
    """
    graph, inputs = _Bytes(network), _Bytes(network)
    inside: list[float] = [0.0]

    def counted(forward: Block) -> Block:
        def run(*arguments: Any, **options: Any) -> Any:
            before = graph.rows + graph.fixed
            for value in (*arguments, *options.values()):
                if isinstance(value, Tensor):
                    inputs.add(value)
            result = forward(*arguments, **options)
            inside.append(graph.rows + graph.fixed - before)
            return result

        return run

    with replaced_forwards(blocks, counted), torch.enable_grad(), saved_tensors_hooks(graph.add, _gone):
        function(x.detach().requires_grad_())
    outside = max(graph.rows + graph.fixed - sum(inside), 0.0)
    return Cost(0.0, graph.rows, outside + inputs.rows + inputs.fixed, max(inside), graph.fixed)


class _Bytes:
    """Sum of the sizes of storages, each counted once; weights are left out."""

    def __init__(self, network: nn.Module):
        weights = [weight for weight in (*network.parameters(), *network.buffers()) if _is_plain(weight)]
        self._known = {weight.untyped_storage()._cdata for weight in weights}
        self._shapes = {tuple(sorted(weight.shape)) for weight in weights if weight.ndim > 1}
        self.rows = self.fixed = 0.0

    def add(self, tensor: Tensor) -> None:
        """Count the storage of ``tensor``; quantised tensors, which are weights, are left out."""
        if not _is_plain(tensor):
            return
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        # A later storage may get the same address.
        weakref.finalize(storage, self._known.discard, storage._cdata)
        if tuple(sorted(tensor.shape)) in self._shapes:
            self.fixed += storage.nbytes()
        else:
            self.rows += storage.nbytes()


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter)


def _gone(_: None) -> Tensor:
    raise RuntimeError("the graph of a measurement is not kept")
