"""The model behind a GUIDER, with a VAE, as a prior of the library.

Everything runs inside ``guider.sample``, in a sampler of our own: so whatever the user attached to the model (LoRA,
ControlNet, areas, masks, function wrappers, guidance) applies as it does in ComfyUI's own samplers.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from enum import IntEnum
from typing import Any, TypeVar

import comfy.model_management
import comfy.samplers
import latent_preview
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...vipaint_ops.errors import InputError
from ...vipaint_ops.images.pictures import pad_observation
from ...vipaint_ops.inference.progress import Progress
from ...vipaint_ops.measurement.observation import Observation
from ..ldm.networks import unquantised
from .gradients import (
    attention_with_gradient,
    check_gradient,
    checkpointed_blocks,
    clone_weights_when_used,
    differentiable,
    is_dynamic,
    make_attributes_differentiable,
    make_differentiable,
    mutates_saved_tensors,
)
from .schedule import HostSchedule
from .vae import HostVAE

CHECKPOINTING = ("auto", "on", "off")
PICTURE_CELLS = 2
"""Pictures are padded to a multiple of so many latent cells: the patch of the transformers."""

_KEY = "vipaint"
_KEPT = 4
"""How many times the memory of a forward pass a backward pass takes, without checkpointing."""
_PROBE_TIME = 0.5

Result = TypeVar("Result")


class Gradients(IntEnum):
    """The networks that a method differentiates through; the others run as they do in ComfyUI's own samplers."""

    NONE = 0
    VAE = 1
    ALL = 2


class HostPrior:
    """The guided prediction of a ComfyUI model, and the decoder of a VAE; valid within one ``guider.sample``."""

    data_std = 1.0
    """ComfyUI's latent formats bring latents to unit variance."""
    dtype = torch.float32

    def __init__(
        self, guider: Any, vae: HostVAE, latent_shape: tuple[int, ...], arguments: dict[str, Any],
        gradients: Gradients, callback: Callable[..., None] | None,
    ):  # fmt: skip
        self._guider, self._model, self._vae, self._arguments = guider, guider.inner_model, vae, arguments
        self._gradients, self._report = gradients, callback
        self.schedule = HostSchedule(self._model.model_sampling)
        self.latent_shape = latent_shape
        self.device = guider.model_patcher.load_device
        self.identity = f"{fingerprint(guider.model_patcher)} {fingerprint(vae.patcher)}"
        self._prediction: Tensor | None = None

    def denoise(self, z: Tensor, t: Tensor) -> Tensor:
        """E[z_0 | z_t = z] for times ``t`` (``[batch]``), under the guider's conditions and strength."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if torch.is_grad_enabled():
            make_differentiable(self._model)
        x, sigma = self.schedule.to_host(z, t)
        prediction = self._run(Gradients.ALL, lambda: self._guider(x, sigma.to(x), **self._arguments).to(z.dtype))
        self._prediction = prediction.detach()[:1]
        return prediction

    def decode(self, z0: Tensor) -> Tensor:
        """Latent to picture in [-1, 1], unclamped."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        return self._run(Gradients.VAE, lambda: self._vae.decode(self._model.process_latent_out(z0)))

    def encode(self, x: Tensor) -> Tensor:
        """Picture to latent."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        shape = (len(x), *self.latent_shape)
        return self._run(Gradients.VAE, lambda: self._model.process_latent_in(self._vae.encode(x).reshape(shape)))

    def to_wire(self, z0: Tensor) -> Tensor:
        """Clean latents as they lie on ComfyUI's LATENT wires, on the CPU."""
        return self._model.process_latent_out(z0).detach().float().cpu()

    def report(self, progress: Progress, latents: Tensor | None = None) -> None:
        """The library's callback: the host's progress bar, with a preview of ``latents`` or the latest prediction."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self._report is None:
            self._report = latent_preview.prepare_callback(self._guider.model_patcher, progress.total)
        shown = self._prediction if latents is None else latents
        self._report(progress.step - 1, shown, shown, progress.total)

    def check(self) -> bool:
        """Compare the gradients with finite differences; whether saved tensors must be guarded against changes.

        Raises:
            InputError: a network that is differentiated through cannot be, or its gradient is wrong.
        """
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(1, *self.latent_shape, generator=generator).to(self.device)
        t = torch.full((1,), _PROBE_TIME, device=self.device)
        if self._gradients < Gradients.ALL:
            check_gradient("vae", self.decode, self.denoise(z, t), 0.0)
            return False
        guard = mutates_saved_tensors(lambda v: self.denoise(v, t), z)
        with ExitStack() as stack:
            if guard:
                stack.enter_context(torch.autograd.graph.allow_mutation_on_saved_tensors())
            linear = self.schedule.to_host(torch.ones_like(z), t)[0].mean().item()
            check_gradient("model", lambda v: self.denoise(v, t), z, linear)
            check_gradient("vae", self.decode, self._prediction, 0.0)
        return guard

    def _run(self, needed: Gradients, network: Callable[[], Tensor]) -> Tensor:
        """Call a network: for gradients through it as this pack needs it, else as the host would."""
        if self._gradients >= needed:
            return network()
        with torch.inference_mode():
            result = network()
        return result.clone()


def with_host_prior(
    guider: Any,
    vae: Any,
    picture_size: tuple[int, int],
    work: Callable[[HostPrior], Result],
    *,
    rows: int,
    checkpointing: str = "auto",
    gradients: Gradients = Gradients.ALL,
    sigmas: Tensor | None = None,
    callback: Callable[..., None] | None = None,
) -> Result:
    """Run ``work`` on the model behind ``guider``, loaded, differentiable and with everything restored afterwards.

    It may be called within a ``guider.sample``, too, as samplers do.

    Args:
        picture_size: height and width, multiples of what :func:`picture_multiple` says.
        rows: how many latents go through the network together, for the reservation of memory.
        checkpointing: one of :data:`CHECKPOINTING`; of use only with gradients through the model.
        gradients: which of them ``work`` needs.
        sigmas: the schedule that patches of the model are told.
        callback: the host's, for :meth:`HostPrior.report`; one of its own where there is none.

    Raises:
        InputError: the model and the VAE do not belong together, the model cannot be differentiated, or memory ran out.
    """
    host_vae = HostVAE(vae)
    # A backward pass keeps several times the memory of a forward pass.
    kept = rows * (_KEPT if gradients == Gradients.ALL else 1)
    guider = _private(guider, kept, gradients)
    latent = empty_latent(guider.model_patcher, host_vae, picture_size)
    if sigmas is None:
        sampling = guider.model_patcher.get_model_object("model_sampling")
        sigmas = torch.tensor([float(sampling.sigma_max), 0.0])
    task = _Task(work, host_vae, checkpointing, gradients, kept, callback)
    try:
        guider.sample(latent, latent, task, sigmas, disable_pbar=True, seed=0)
    except comfy.model_management.OOM_EXCEPTION as error:
        comfy.model_management.soft_empty_cache()
        raise InputError(
            "out of memory: lower batch_size (of a sampler) or samples (of Fit Posterior), switch checkpointing on, or "
            "crop and resize the picture"
        ) from error
    return task.result


def picture_multiple(vae: Any) -> int:
    """What both sides of a picture must be a multiple of."""
    return PICTURE_CELLS * int(vae.spacial_compression_decode())


def pad_to_model(observation: Observation, vae: Any) -> tuple[Observation, tuple[int, int], tuple[int, int]]:
    """The observation of a picture of sides that the model takes, those sides, and the ones to crop back to."""
    with torch.inference_mode(False):
        padded = pad_observation(observation, picture_multiple(vae))
    sides, size = (one.operator.picture_size(tuple(one.y.shape[2:])) for one in (padded, observation))
    return padded, sides, size


def empty_latent(patcher: Any, vae: HostVAE, picture_size: tuple[int, int]) -> Tensor:
    """Zeros of the model's latent shape for a picture, ``[1, channels, (1,) h, w]``.

    Raises:
        InputError: the VAE is not the model's.
    """
    latent_format = patcher.get_model_object("latent_format")
    channels, dimensions = latent_format.latent_channels, latent_format.latent_dimensions
    if vae.latent_channels != channels or dimensions not in (2, 3):
        raise InputError(
            f"vae has latents of {vae.latent_channels} channels and the model of {channels}: use the VAE that belongs "
            "to the model"
        )
    frames = (1,) * (dimensions - 2)
    return torch.zeros(1, channels, *frames, *(side // vae.factor for side in picture_size))


def fingerprint(patcher: Any) -> str:
    """Names a model by its class, the first numbers of its unpatched weights, and the keys and strengths of patches."""
    digest = hashlib.sha256()
    for name, weight in sorted(patcher.model.named_parameters()):
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        if name in patcher.patches:
            digest.update(str([(patch[0], patch[2]) for patch in patcher.patches[name]]).encode())
        elif type(weight.data) is Tensor:
            digest.update(weight.detach().flatten()[:4].float().cpu().numpy().tobytes())
    return f"{type(patcher.model).__name__} {digest.hexdigest()[:12]}"


def _private(guider: Any, kept: int, gradients: Gradients) -> Any:
    """A copy of the guider whose model can be given settings that the user's graph never sees.

    ``kept`` is how many latents' forward passes are to fit into memory.

    Raises:
        InputError: conditions with weight hooks of their own, whose gradient would silently be wrong.
    """
    guider = copy.copy(guider)
    patcher = guider.model_patcher.clone()
    if gradients == Gradients.ALL:
        if comfy.samplers.get_total_hook_groups_in_conds(guider.original_conds) > 1:
            raise InputError(
                "guider has conditions with different weight hooks (scheduled LoRA): VIPaint cannot differentiate "
                "through a model that changes between conditions; give all conditions the same hooks, or load the "
                "LoRA as usual"
            )
        _prepare_for_gradients(patcher)

    def reserve(executor, model, noise_shape, *arguments, **options):
        return executor(model, [kept, *noise_shape[1:]], *arguments, **options)

    patcher.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, _KEY, reserve)
    guider.model_patcher, guider.model_options = patcher, patcher.model_options
    return guider


def _prepare_for_gradients(patcher: Any) -> None:
    if is_dynamic(patcher):
        clone_weights_when_used(patcher)
    if hasattr(patcher, "remove_additional_models"):
        patcher.remove_additional_models("multigpu")
    options = patcher.model_options["transformer_options"]
    patcher.model_options["transformer_options"] = options | {"optimized_attention_override": attention_with_gradient}


class _Task(comfy.samplers.Sampler):
    """The sampler that hands the loaded model to ``work``."""

    def __init__(
        self, work: Callable[[HostPrior], Any], vae: HostVAE, checkpointing: str, gradients: Gradients, kept: int,
        callback: Callable[..., None] | None,
    ):  # fmt: skip
        self._work, self._vae, self._checkpointing, self._callback = work, vae, checkpointing, callback
        self._gradients, self._kept = gradients, kept
        self.result: Any = None

    def sample(self, guider, sigmas, arguments, callback, noise, latent, denoise_mask=None, disable_pbar=False):
        patcher, shape = guider.model_patcher, (self._kept, *latent.shape[1:])
        memory = max(patcher.memory_required(shape), self._vae.memory((1, *latent.shape[1:])))
        # In one call, or loading either might throw out the other.
        comfy.model_management.load_models_gpu([patcher, self._vae.patcher], memory_required=memory)
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            stack.enter_context(unquantised(self._vae.network))
            prior = HostPrior(guider, self._vae, tuple(latent.shape[1:]), arguments, self._gradients, self._callback)
            if self._gradients >= Gradients.VAE:
                stack.enter_context(differentiable())
                make_differentiable(self._vae.network)
                make_attributes_differentiable(guider.inner_model.latent_format)
            if self._gradients == Gradients.ALL:
                self._make_differentiable(guider)
                if self._wants_checkpoints(patcher, shape):
                    stack.enter_context(checkpointed_blocks(guider.inner_model.diffusion_model))
            if self._gradients and prior.check():
                stack.enter_context(torch.autograd.graph.allow_mutation_on_saved_tensors())
            self.result = self._work(prior)
        return latent

    def _make_differentiable(self, guider: Any) -> None:
        if any(is_dynamic(extra) for extra in guider.loaded_models):
            raise InputError(
                "guider has a ControlNet whose weights ComfyUI pages through memory that is reused, which would make "
                "gradients wrong: start ComfyUI with --disable-dynamic-vram, or leave the ControlNet out"
            )
        for network in (guider.inner_model, *(extra.model for extra in guider.loaded_models)):
            make_differentiable(network)

    def _wants_checkpoints(self, patcher: Any, shape: tuple[int, ...]) -> bool:
        if self._checkpointing != "auto":
            return self._checkpointing == "on"
        free = comfy.model_management.get_free_memory(patcher.load_device)
        return is_dynamic(patcher) or patcher.memory_required(shape) > free
