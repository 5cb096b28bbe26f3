"""What a run costs: operations and memory of one row of each network, times the rows that a method takes.

A row is the latent or the picture of one sample. Networks on the meta device are enough: no weights exist, no
arithmetic is done.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from ..diffusion.prior import Evaluations

SAMPLES, PLAIN_STEPS = 4, 28
"""Pictures of a counted run, and steps of a plain generation."""


class Row(NamedTuple):
    """Cost of one row of a network.

    Attributes:
        forward, backward: operations; the backward is with respect to the input, recomputation included.
        working: bytes alive at once in a forward pass without gradient.
        kept: bytes of the graph from the forward pass to the backward pass.
        peak: bytes alive at once in forward and backward pass, ``kept`` included.
        together: whether the rows of a batch are in memory together.
    """

    forward: float
    backward: float
    working: float
    kept: float
    peak: float
    together: bool = True

    def tiled(self, tiles: int) -> Row:
        """A row in ``tiles`` tiles of the size of this one; one is in memory at a time and recomputed backwards."""
        backward = self.forward + self.backward
        return Row(tiles * self.forward, tiles * backward, self.working, 0, self.peak, together=False)


class Costs(NamedTuple):
    """Costs of a row of each network."""

    denoiser: Row
    decoder: Row
    encoder: Row


class Rows(NamedTuple):
    """Rows of a run: of its fit, and of :data:`SAMPLES` samples."""

    fit: Evaluations
    samples: Evaluations

    @property
    def total(self) -> Evaluations:
        """Of both."""
        return self.fit + self.samples

    @property
    def gradients(self) -> frozenset[str]:
        """The networks that are differentiated: "denoiser", "decoder", "encoder"."""
        networks = Costs._fields
        return frozenset(name for name in networks if getattr(self.total, f"{name}_backward"))


PLAIN = Rows(Evaluations(), Evaluations(denoiser_forward=SAMPLES * PLAIN_STEPS, decoder_forward=SAMPLES))
"""A plain generation."""


def tflop(rows: Evaluations, costs: Costs, guided: bool) -> float:
    """Operations of a run in TFLOP; a guided row of the denoiser counts twice, one of the condition alone once."""
    total = rows.condition_forward * costs.denoiser.forward
    for name, cost in costs._asdict().items():
        factor = 2 if guided and name == "denoiser" else 1
        forward, backward = (getattr(rows, f"{name}_{direction}") for direction in ("forward", "backward"))
        total += factor * (forward * cost.forward + backward * cost.backward)
    return total / 1e12


def run_tflop(rows: Rows, samples: int, costs: Costs, guided: bool) -> float:
    """Operations of a fit with that many samples, in TFLOP."""
    return tflop(rows.fit, costs, guided) + tflop(rows.samples, costs, guided) * samples / SAMPLES


def peak_memory(weights: float, costs: Costs, rows: int, guided: bool, gradients: Collection[str]) -> float:
    """Bytes at the peak of ``rows`` samples with the gradients of "denoiser", "decoder" or both.

    For a gradient through both, the graph of the denoiser is kept while the decoder runs backwards, and the decoder's
    while the denoiser does.
    """
    denoised, decoded = _alive(costs, rows, guided)
    if not {"denoiser", "decoder"} <= set(gradients):
        one = costs.denoiser.peak if "denoiser" in gradients else costs.denoiser.working
        other = costs.decoder.peak if "decoder" in gradients else costs.decoder.working
        return weights + max(denoised * one, decoded * other)
    in_decoder = denoised * costs.denoiser.kept + decoded * costs.decoder.peak
    in_denoiser = denoised * costs.denoiser.peak + rows * costs.decoder.kept
    return weights + max(in_decoder, in_denoiser)


def forward_memory(weights: float, costs: Costs, rows: int, guided: bool) -> float:
    """Bytes at the peak of ``rows`` samples without any gradient."""
    denoised, decoded = _alive(costs, rows, guided)
    return weights + max(denoised * costs.denoiser.working, decoded * costs.decoder.working)


def _alive(costs: Costs, rows: int, guided: bool) -> tuple[int, int]:
    """Rows of the denoiser and of the decoder that are in memory together."""
    return rows * (2 if guided else 1), rows if costs.decoder.together else 1


def trace(function: Callable[[Tensor], Tensor], x: Tensor, weights: Iterable[Tensor] = ()) -> Row:
    """The cost of ``function`` of ``x``, a tensor on the meta device."""
    weights = list(weights)
    with patch("torch.nn.functional.scaled_dot_product_attention", flash_attention):
        with torch.no_grad(), LiveBytes(weights) as alone:
            function(x.detach())
        with LiveBytes(weights) as live:
            leaf = x.detach().requires_grad_()
            _backward(function(leaf), leaf)
        saved, forward, backward = SavedBytes(weights), FlopCounterMode(display=False), FlopCounterMode(display=False)
        with forward, saved:
            y = function(leaf)
        with backward:
            _backward(y, leaf)
    return Row(forward.get_total_flops(), backward.get_total_flops(), alone.peak, saved.total, live.peak)


def _backward(y: Tensor, x: Tensor) -> None:
    torch.autograd.grad(y, x, torch.ones_like(y))


def recompute(module: nn.Module, blocks: tuple[type[nn.Module], ...]) -> None:
    """Recompute the activations of all ``blocks`` of a module in the backward pass."""
    for block in module.modules():
        if isinstance(block, blocks):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)


def flash_attention(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    """Attention as the flash kernel: a backward of 2.5 forwards, no matrix of scores in memory."""
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Bytes that autograd keeps for the backward pass: every storage once, those of ``weights`` not at all."""

    def __init__(self, weights: Iterable[Tensor]):
        super().__init__(self._keep, lambda x: x)
        self._storages = {x.untyped_storage()._cdata: x.untyped_storage() for x in weights}
        self._weights = set(self._storages)

    def _keep(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        self._storages[storage._cdata] = storage  # kept, so that no later storage has its address
        return x

    @property
    def total(self) -> int:
        """Bytes of the graph."""
        return sum(s.nbytes() for address, s in self._storages.items() if address not in self._weights)


class LiveBytes(TorchDispatchMode):
    """Largest number of bytes alive at once in the results of operations; ``weights`` are left out."""

    def __init__(self, weights: Iterable[Tensor]):
        super().__init__()
        self._alive = dict.fromkeys((x.untyped_storage()._cdata for x in weights), 0)
        self._now = self.peak = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        results = function(*arguments, **(options or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._add(result.untyped_storage())
        return results

    def _add(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address not in self._alive:
            self._alive[address] = storage.nbytes()
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._remove, address)

    def _remove(self, address: int) -> None:
        self._now -= self._alive.pop(address)
