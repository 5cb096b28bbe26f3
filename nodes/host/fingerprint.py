"""The identity of a host's model, with the patches on its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

WEIGHTS = "vipaint_weights"
"""Attachment of a patcher with the digest of its file, by which the library names the model too."""
_FIRST = 4
"""Number of values that are taken from the start of an unpatched weight."""
_SPREAD = 16
"""Number of values that are taken from all over a tensor of a patch."""


def fingerprint(patcher: Any) -> str:
    """Identifies a model by its class, values of its unpatched weights, and strengths and values of its patches.

    A few values of each tensor are read, so two models that differ only elsewhere have the same fingerprint.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(patcher.model.named_parameters()):
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        if name in patcher.patches:
            for content in _contents(patcher.patches[name]):
                digest.update(content)
        elif _is_plain(weight.data):
            digest.update(_bytes(weight.detach().flatten()[:_FIRST]))
    return f"{type(patcher.model).__name__} {digest.hexdigest()[:12]}"


def weights_file(*patchers: Any) -> str | None:
    """The digest of the file that all of these patchers were loaded from, unchanged; None where there is none."""
    found = {patcher.get_attachment(WEIGHTS) for patcher in patchers}
    patched = any(patcher.patches for patcher in patchers)
    return found.pop() if len(found) == 1 and not patched else None


def _contents(patch: Any) -> Iterator[bytes]:
    """Numbers, words and values of tensors in a patch: in tuples, lists, dictionaries and the host's adapters.

    Functions and other objects are left out, as they have no content that is the same in another process.
    """
    if isinstance(patch, Tensor):
        yield str(tuple(patch.shape)).encode()
        if _is_plain(patch):
            flat = patch.detach().flatten()
            yield _bytes(flat[:: max(1, len(flat) // _SPREAD)][:_SPREAD])
    elif isinstance(patch, (list, tuple)):
        for part in patch:
            yield from _contents(part)
    elif isinstance(patch, dict):
        yield from _contents(list(patch.items()))
    elif hasattr(patch, "weights"):
        yield type(patch).__name__.encode()
        yield from _contents(patch.weights)
    elif patch is None or isinstance(patch, (bool, int, float, str)):
        yield repr(patch).encode()


def _is_plain(tensor: Tensor) -> bool:
    """Whether it is no subclass, such as the host's quantised tensors."""
    return type(tensor) in (Tensor, nn.Parameter)


def _bytes(values: Tensor) -> bytes:
    return values.float().cpu().numpy().tobytes()
