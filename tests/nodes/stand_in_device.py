"""A device without float64, such as Apple's MPS, that computes on the CPU: for tests on any machine.

Within :class:`StandInDevice`, tensors made with ``device=DEVICE`` or moved there report that device, and so do the
results of operations on them. An operation that would put a float64 tensor there raises, and so does one that mixes
them with tensors of the CPU that are no scalars.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
"""Reported by the tensors: one that every build of PyTorch has, and that nothing else here uses."""


class OnDevice(Tensor):
    """A tensor that reports :data:`DEVICE`; ``held`` has its values on the CPU."""

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        if held.dtype == torch.float64:
            raise RuntimeError("the device has no float64")
        return Tensor._make_wrapper_subclass(cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE)

    def __init__(self, held: Tensor):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None) -> Any:
        return _run(func, args, kwargs or {})


class StandInDevice(TorchDispatchMode):
    """Makes :data:`DEVICE` available, for the length of a ``with`` block."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    inputs_on_device = any(isinstance(tensor, OnDevice) for tensor in tensors)
    target = kwargs.get("device")
    on_device = inputs_on_device if target is None else torch.device(target).type == DEVICE.type
    if inputs_on_device and any(tensor.ndim for tensor in tensors if not isinstance(tensor, OnDevice)):
        raise RuntimeError(f"{func} mixes tensors of the CPU and of the device")
    if target is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = tree_map_only(OnDevice, lambda tensor: tensor.held, (args, kwargs))
    result = func(*args, **kwargs)
    return tree_map_only(Tensor, OnDevice, result) if on_device else result
