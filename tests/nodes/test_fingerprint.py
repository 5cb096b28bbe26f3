"""The identity of a model: what changes it and what does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from nodes.host.fingerprint import fingerprint


class LoRAAdapter:
    """As comfy.weight_adapter's: factors, alpha, and places for parts that a LoRA need not have."""

    def __init__(self, seed):
        numbers = torch.Generator().manual_seed(seed)
        up, down = torch.randn(8, 2, generator=numbers), torch.randn(2, 8, generator=numbers)
        self.loaded_keys, self.weights = {"up", "down"}, (up, down, 2.0, None, None, None)


class Quantised(Tensor):
    """A subclass of tensors, of which no values are read."""


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8))


def patcher(*patches, strength=1.0):
    """A patcher of the same network with patches on its weight, in the host's form."""
    entries = [(strength, patch, 1.0, None, None) for patch in patches]
    return SimpleNamespace(model=network(), patches={"0.weight": entries} if patches else {})


KINDS = {
    "adapter": LoRAAdapter,
    "difference": lambda seed: ("diff", (torch.full((8, 8), float(seed)),)),
    "padded difference": lambda seed: ("diff", (torch.full((8, 8), float(seed)), {"pad_weight": True})),
    "replacement": lambda seed: ("set", (torch.full((8, 8), float(seed)).half(),)),
    "merged model": lambda seed: [(torch.full((8, 8), float(seed)), lambda weight, **_: weight)],
    "nested patches": lambda seed: [(0.5, LoRAAdapter(seed), 1.0, None, None)],
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_patches_of_the_same_keys_and_strengths_differ_by_their_values(make):
    assert fingerprint(patcher(make(0))) == fingerprint(patcher(make(0)))
    assert fingerprint(patcher(make(0))) != fingerprint(patcher(make(1)))
    assert fingerprint(patcher(make(0))) != fingerprint(patcher())


def test_a_difference_far_from_the_start_of_a_tensor_counts():
    first, second = torch.zeros(2, 64, 64)
    second[32:] = 1
    assert fingerprint(patcher(("diff", (first,)))) != fingerprint(patcher(("diff", (second,))))


def test_strengths_and_order_count():
    one, other = LoRAAdapter(0), LoRAAdapter(1)
    assert fingerprint(patcher(one)) != fingerprint(patcher(one, strength=0.5))
    assert fingerprint(patcher(one, other)) != fingerprint(patcher(other, one))


@pytest.mark.parametrize("patch", [None, (), ("diff", (None,)), object(), len, torch.empty(0)])
def test_what_is_no_tensor_does_no_harm(patch):
    assert fingerprint(patcher(patch)) == fingerprint(patcher(patch))


def test_no_values_of_quantised_tensors_are_read():
    first, second = (torch.full((4,), value).as_subclass(Quantised) for value in (0.0, 1.0))
    assert fingerprint(patcher(("diff", (first,)))) == fingerprint(patcher(("diff", (second,))))


def test_other_weights_are_another_model():
    changed = patcher()
    with torch.no_grad():
        changed.model[0].bias += 1
    assert fingerprint(changed) != fingerprint(patcher())
