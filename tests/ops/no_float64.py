"""A stand-in for a device without float64, as Apple's MPS: operations run on the CPU, and float64 raises an error.

    with no_float64():
        x = on_device(torch.randn(2, 3))    # x.device is mps:0; factories take device=x.device
        y = (x @ x.mT).cpu().double()       # float64 on the CPU
        x.double()                          # raises Float64Error

Rules, as on the real device:
- No operation returns a float64 or complex128 tensor on the device. ``x.cpu().double()`` is two steps:
  ``x.to("cpu", torch.float64)`` converts on the device first.
- One operation does not mix tensors of the device and of the CPU. Exceptions: CPU tensors without dimensions, copies,
  and CPU tensors as indices.
- A CPU generator does not draw on the device.

Not covered: the set of operations that the real device implements, and its rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

CPU, DEVICE = torch.device("cpu"), torch.device("mps", 0)
# The wrappers' own device in C++, as in FakeTensor: autograd needs no device threads for it.
_IN_CPP = torch.device("meta")
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)


class Float64Error(RuntimeError):
    """An operation would make a float64 tensor on the device."""


class DeviceTensor(Tensor):
    """A tensor on the device; ``held`` has its values, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False):
        self = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=_IN_CPP,
            requires_grad=requires_grad,
        )
        self.held = held
        return self

    @property
    def device(self) -> torch.device:
        return DEVICE

    def tolist(self):
        return self.held.tolist()

    def new_tensor(self, data, **options):
        return torch.tensor(data, **{"dtype": self.dtype, "device": DEVICE, **options})

    def __repr__(self) -> str:
        return f"DeviceTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


@contextmanager
def no_float64() -> Iterator[None]:
    """Within this context ``torch.zeros(..., device="mps")`` and ``tensor.to("mps")`` reach the device too."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # as FakeTensorMode: torch.tensor(..., device="mps") passes the mode
    try:
        with _NoFloat64():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


def on_device(tensor: Tensor) -> DeviceTensor:
    """A copy of ``tensor`` on the device; a leaf, which requires a gradient where ``tensor`` does.

    Raises:
        Float64Error: ``tensor`` is float64 or complex128.
    """
    _require_narrow("on_device", tensor)
    return DeviceTensor(tensor.detach().clone(), tensor.requires_grad)


def _run(func, args, kwargs):
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    comes_from = any(isinstance(tensor, DeviceTensor) for tensor in inputs)
    target = kwargs.get("device")
    goes_to = comes_from if target is None else torch.device(target).type in (DEVICE.type, _IN_CPP.type)
    on_cpu, options = tree_map_only(DeviceTensor, lambda tensor: tensor.held, (args, kwargs))
    if target is not None:
        options = {**options, "device": CPU}
    if not (comes_from or goes_to):
        return func(*on_cpu, **options)
    _require_one_device(func, inputs, kwargs)
    out = func(*on_cpu, **options)
    tree_map_only(Tensor, lambda tensor: _require_narrow(func, tensor), out)
    if not goes_to:
        return out
    return return_and_correct_aliasing(func, args, kwargs, tree_map_only(Tensor, DeviceTensor, out))


def _require_one_device(func, inputs, kwargs) -> None:
    if kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: a CPU generator does not draw on {DEVICE}")
    if func not in _COPIES:
        checked = inputs[:1] if func in _INDEXING else inputs
        if any(tensor.ndim > 0 and not isinstance(tensor, DeviceTensor) for tensor in checked):
            raise RuntimeError(f"{func}: tensors on {DEVICE} and on the CPU in one operation")


def _require_narrow(func, tensor: Tensor) -> None:
    if tensor.dtype in (torch.float64, torch.complex128):
        raise Float64Error(f"{func}: {DEVICE} has no {tensor.dtype}")
