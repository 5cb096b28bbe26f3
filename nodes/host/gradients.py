"""Gradients through networks that ComfyUI loads for inference.

ComfyUI runs nodes in inference mode, keeps weights as inference tensors, and on recent NVIDIA GPUs pages them through
memory that is reused. Each function here removes one of these obstacles.

Context managers restore what they change. :func:`make_differentiable` and :func:`make_attributes_differentiable` do
not: a network keeps its normal tensors, which share the memory of the inference tensors, and ComfyUI's own samplers run
on them unchanged. :func:`clone_weights_when_used` changes a patcher, so it is for a clone of the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn

from ...vipaint_ops.errors import InputError

_PROBE_TOLERANCE = 0.2
_PROBE_STEP = 0.5
_PRECISE = {"model": ("--fp32-unet", "--bf16-unet"), "vae": ("--fp32-vae", "--bf16-vae")}
_REMEDY = (
    "use a method without gradients of the model (the presets fast, balanced and quality, or the samplers DInG, DDNM "
    "and LanPaint), or load the model unquantised (fp16 or bf16), without torch.compile and without weight hooks on "
    "single conditions"
)


@contextmanager
def differentiable() -> Iterator[None]:
    """Leave inference mode, and make the host use differentiable operations.

    Offload streams order their copies for forward passes only: a copy could be overwritten while a backward pass still
    reads it. The fused kernels that the host prefers have no derivative.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_setting("NUM_STREAMS", 0))
        stack.enter_context(_setting("in_training", True))
        yield


@contextmanager
def _setting(name: str, value: Any) -> Iterator[None]:
    """Set one of the host's module settings, if this version has it."""
    if not hasattr(comfy.model_management, name):
        yield
        return
    before = getattr(comfy.model_management, name)
    setattr(comfy.model_management, name, value)
    try:
        yield
    finally:
        setattr(comfy.model_management, name, before)


def attention_with_gradient(function: Callable[..., Tensor], *arguments: Any, **options: Any) -> Tensor:
    """An ``optimized_attention_override`` that uses PyTorch's attention: the host's may have no derivative."""
    return attention_pytorch.__wrapped__(*arguments, **options)


def make_differentiable(module: nn.Module) -> None:
    """Replace inference tensors of a module by normal tensors on the same memory, without a copy.

    Weights of modules that page them (``_v``) are skipped: each forward pass makes new tensors from them.
    """
    normal: dict[int, Tensor] = {}
    for part in module.modules():
        if hasattr(part, "_v"):
            continue
        for name, parameter in part._parameters.items():
            if _is_bare(parameter):
                part._parameters[name] = nn.Parameter(_on_same_memory(parameter, normal), requires_grad=False)
        for name, buffer in part._buffers.items():
            if _is_bare(buffer):
                part._buffers[name] = _on_same_memory(buffer, normal)


def make_attributes_differentiable(holder: object) -> None:
    """As :func:`make_differentiable`, for tensor attributes of an object that is no module, such as a latent format."""
    for name, value in vars(holder).items():
        if isinstance(value, Tensor) and _is_bare(value):
            setattr(holder, name, _on_same_memory(value, {}))


def _is_bare(tensor: Tensor | None) -> bool:
    """Whether autograd refuses the tensor: an inference tensor, or one that lost its version counter in a move."""
    if tensor is None or not _holds_memory(tensor):
        return False
    try:
        return tensor.is_inference() or tensor._version < 0
    except RuntimeError:
        return True


def _holds_memory(tensor: Tensor) -> bool:
    """Whether the tensor has memory of its own, which a class that dispatches operations to inner tensors has not."""
    return type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__


def _on_same_memory(tensor: Tensor, made: dict[int, Tensor]) -> Tensor:
    if id(tensor) not in made:
        normal = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        normal.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
        if type(tensor) not in (Tensor, nn.Parameter):
            # Loader packs keep the format of a quantised weight in attributes of a class of their own.
            normal = normal.as_subclass(type(tensor))
            vars(normal).update(vars(tensor))
        made[id(tensor)] = normal
    return made[id(tensor)]


def is_dynamic(patcher: Any) -> bool:
    """Whether the host pages the weights of this model through memory that it reuses."""
    return getattr(patcher, "is_dynamic", lambda: False)()


def clone_weights_when_used(patcher: Any) -> None:
    """Make each operation of a (cloned) patcher work on a copy of its weight, which a backward pass can keep.

    Without the copy, autograd keeps views of reused memory, and gradients are wrong without an error.
    """
    modules = dict(patcher.model.named_modules())
    for key in patcher.model_state_dict():
        owner, _, leaf = key.rpartition(".")
        if leaf in ("weight", "bias") and hasattr(modules.get(owner), "weight_function"):
            patcher.add_weight_wrapper(key, torch.clone)


def mutates_saved_tensors(function: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether a network changes tensors in place that its backward pass needs, as ControlNets and Flux do in ComfyUI.

    Raises:
        InputError: the network cannot be differentiated.
    """

    def differentiate() -> None:
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            torch.autograd.grad(function(z).sum(), z)

    try:
        differentiate()
        return False
    except comfy.model_management.OOM_EXCEPTION:
        raise
    except RuntimeError as error:
        try:
            with torch.autograd.graph.allow_mutation_on_saved_tensors():
                differentiate()
        except comfy.model_management.OOM_EXCEPTION:
            raise
        except (RuntimeError, TypeError) as second:
            # Tensor classes of loader packs may not run under the guard; the first error is the cause.
            raise _no_gradient(error) from second
        return True


def check_gradient(name: str, function: Callable[[Tensor], Tensor], x: Tensor, linear: float) -> None:
    """Compare the gradient of a network with a finite difference.

    ``linear`` times the input is subtracted from the output first, so that the network's own part is compared.

    Raises:
        InputError: the two disagree, or there is no gradient.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight = torch.randn(function(x).shape, generator=generator).to(x)
    weight = weight / weight.norm()

    def value(z: Tensor) -> Tensor:
        y = function(z)
        return (weight * (y - linear * z if linear else y)).sum()

    with torch.enable_grad():
        z = x.detach().requires_grad_()
        try:
            (gradient,) = torch.autograd.grad(value(z), z)
        except RuntimeError as error:
            raise _no_gradient(error) from error
    slope = gradient.norm()
    direction = gradient / slope.clamp(min=torch.finfo(x.dtype).tiny)
    with torch.no_grad():
        measured = (value(x + _PROBE_STEP * direction) - value(x - _PROBE_STEP * direction)) / (2 * _PROBE_STEP)
    if not (measured + slope).isfinite():
        raise InputError(
            f"this {name} or its gradient is NaN or infinite: start ComfyUI with {' or '.join(_PRECISE[name])}"
        )
    if not abs(measured - slope) <= _PROBE_TOLERANCE * max(abs(measured), slope):
        raise InputError(
            f"the gradient of this {name} is wrong in this ComfyUI ({slope.item():.4g}, finite difference "
            f"{measured.item():.4g}): {_REMEDY}"
        )


def _no_gradient(error: RuntimeError) -> InputError:
    if isinstance(error, comfy.model_management.OOM_EXCEPTION):
        raise error
    reason = " ".join(str(error).split())[:200]
    return InputError(
        f"this model cannot be differentiated in this ComfyUI ({reason}), and this method needs its gradient: {_REMEDY}"
    )
