"""Blocks of a network, whose activations can be recomputed in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Block = Callable[..., Any]
"""The ``forward`` of a module."""
_CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


def outer_blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The largest blocks of a denoiser: residual blocks and transformers."""
    for child in network.children():
        if isinstance(child, _CONTAINERS):
            yield from outer_blocks(child)
        elif "forward" not in child.__dict__:
            yield child


def inner_blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The smallest blocks of an autoencoder: modules of two or more layers with weights, and no such module inside."""
    for child in network.children():
        yield from list(inner_blocks(child)) or ([child] if _is_block(child) else [])


def _is_block(module: nn.Module) -> bool:
    if isinstance(module, _CONTAINERS) or "forward" in module.__dict__:
        return False
    leaves = [part for part in module.modules() if not any(part.children())]
    return sum(any(True for _ in leaf.parameters(recurse=False)) for leaf in leaves) > 1


@contextmanager
def checkpointed_blocks(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Recompute the activations of ``blocks`` in the backward pass."""
    with replaced_forwards(blocks, _checkpointed):
        yield


@contextmanager
def replaced_forwards(blocks: Iterable[nn.Module], wrap: Callable[[Block], Block]) -> Iterator[None]:
    """Replace the ``forward`` of modules; calls that take lists are not changed."""

    def guarded(forward: Block) -> Block:
        wrapped = wrap(forward)
        return lambda *args, **options: (forward if _has_state(args, options) else wrapped)(*args, **options)

    changed = list(blocks)
    for block in changed:
        block.forward = guarded(block.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for block in changed:
            block.__dict__.pop("forward", None)


def _has_state(arguments: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Whether a call takes lists, which a block may change: it cannot be repeated then."""
    return any(isinstance(value, list) for value in (*arguments, *options.values()))


def _checkpointed(forward: Block) -> Block:
    def on_copies(*arguments: Any, **options: Any) -> Any:
        # Flux's blocks add to their inputs in place, which would then not be the inputs of the recomputation.
        copies = (a.clone() if isinstance(a, Tensor) else a for a in arguments)
        return forward(*copies, **{k: v.clone() if isinstance(v, Tensor) else v for k, v in options.items()})

    def run(*arguments: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **options)
        return checkpoint(on_copies, *arguments, use_reentrant=False, preserve_rng_state=False, **options)

    return run
