"""What the worker of a batch keeps in memory for its next run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Loaded = TypeVar("Loaded")

_kept: dict[object, object] | None = None


def keep_models() -> None:
    """From now on, this process keeps the last model that it has loaded."""
    global _kept
    _kept = {}


def once(load: Callable[..., Loaded], *arguments: object) -> Loaded:
    """What a function loads; the kept one if the call is the same. Another one is freed before."""
    if _kept is None:
        return load(*arguments)
    key = (load, *arguments)
    if key not in _kept:
        _kept.clear()
        _kept[key] = load(*arguments)
    return _kept[key]  # type: ignore[return-value]
