"""The model behind a GUIDER, with a VAE, as a prior of the library.

Everything runs inside ``guider.sample``, in a sampler of the pack. LoRAs, ControlNets, areas, masks, function wrappers
and guidance apply as in ComfyUI's own samplers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import comfy.model_management
import comfy.samplers
import latent_preview
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...vipaint_ops.errors import InputError
from ...vipaint_ops.images.padding import pad_observation
from ...vipaint_ops.inference.progress import Progress
from ...vipaint_ops.measurement.observation import Observation
from ...vipaint_ops.settings import is_finite
from .blocks import checkpointed_blocks, outer_blocks
from .branches import Gradients, PositiveBranch
from .codebook import unquantised
from .conditions import Part, place_conditions
from .fingerprint import fingerprint, weights_file
from .gradients import (
    attention_with_gradient,
    check_gradient,
    clone_weights_when_used,
    differentiable,
    is_dynamic,
    make_attributes_differentiable,
    make_differentiable,
    mutates_saved_tensors,
)
from .memory import BRANCHES, MARGIN, form, measure
from .remedies import memory_remedies
from .reservation import reservation
from .schedule import HostSchedule
from .settings import RunSettings
from .vae import HostVAE

PICTURE_CELLS = 2
"""Images are padded to a multiple of this many latent cells, the patch size of the transformers."""

_KEY = "vipaint"
_STRENGTHS = {"cfg", "cfg1", "cfg2", "neg_scale"}
"""Numbers of ComfyUI's guiders."""
_PROBE_TIME = 0.5
_BAR = 1000
"""Length of a progress bar for several stages."""

Result = TypeVar("Result")


class HostPrior:
    """The guided prediction of a ComfyUI model and the decoder of a VAE, valid within one ``guider.sample``."""

    data_std = 1.0
    """ComfyUI's latent formats have unit variance."""
    dtype = torch.float32

    def __init__(
        self,
        guider: Any,
        vae: HostVAE,
        latent_shape: tuple[int, ...],
        arguments: dict[str, Any],
        settings: RunSettings,
    ):
        self._guider, self._model, self._vae, self._arguments = guider, guider.inner_model, vae, arguments
        self._settings, self._report = settings, settings.callback
        self.schedule = HostSchedule(self._model.model_sampling)
        self.latent_shape = latent_shape
        self.device = guider.model_patcher.load_device
        self.identity = f"{fingerprint(guider.model_patcher)} {fingerprint(vae.patcher)}"
        self.weights_file = weights_file(guider.model_patcher, vae.patcher)
        self.decoder_gradient = Gradients.VAE in settings.gradients
        self.rows = settings.rows
        self.reached = "in the first pass of the model"
        self._passes = 0
        self._prediction: Tensor | None = None
        self._branch: PositiveBranch | None = None

    def denoise(self, z: Tensor, t: Tensor) -> Tensor:
        """E[z_0 | z_t = z] for times ``t`` (``[batch]``), with the guider's conditions and cfg."""
        return self._guided(z, t)

    def denoise_with_condition(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction of :meth:`denoise` and that of the positive conditions, without gradients.

        Guiders that do not predict with one positive and one negative set of conditions have the guided one twice.
        """
        self._branch = PositiveBranch(self._arguments["model_options"])
        guided = self._guided(z, t, model_options=self._branch.options)
        found = self._branch.prediction
        return guided, guided if found is None else found.to(z.dtype).clone()

    def denoise_condition(self, z: Tensor, t: Tensor) -> Tensor:
        """The prediction of the positive conditions of the last :meth:`denoise_with_condition`."""
        branch = self._branch
        if branch is None or branch.prediction is None:
            return self._guided(z, t)
        return self._predicted(z, t, branch.at)

    def _guided(self, z: Tensor, t: Tensor, **arguments: Any) -> Tensor:
        given = self._arguments | arguments
        prediction = self._predicted(z, t, lambda x, sigma: self._guider(x, sigma, **given))
        self._prediction = prediction.detach()[:1]
        return prediction

    def _predicted(self, z: Tensor, t: Tensor, predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if torch.is_grad_enabled():
            make_differentiable(self._model)
        x, sigma = self.schedule.to_host(z, t)
        return self._run(Gradients.MODEL, lambda: predict(x, sigma).to(z.dtype))

    def decode(self, z0: Tensor) -> Tensor:
        """Latent to image in [-1, 1], unclamped."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        return self._run(Gradients.VAE, lambda: self._vae.decode(self._model.process_latent_out(z0)))

    def encode(self, x: Tensor) -> Tensor:
        """Image to latent."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        shape = (len(x), *self.latent_shape)
        return self._run(Gradients.VAE, lambda: self._model.process_latent_in(self._vae.encode(x).reshape(shape)))

    def to_wire(self, z0: Tensor) -> Tensor:
        """Clean latents in the scale of ComfyUI's LATENT, on the CPU."""
        return self._model.process_latent_out(z0).detach().float().cpu()

    def report(self, progress: Progress, latents: Tensor | None = None) -> None:
        """Callback of the library: progress bar, with a preview of ``latents`` or of the latest prediction."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        step, total, display = progress.step, progress.total, self._settings.display
        self.reached = f"after step {step} of {total} of the stage {progress.stage!r}"
        if display is not None:
            step, total = round(_BAR * display.place(progress)), _BAR
        if self._report is None:
            self._report = latent_preview.prepare_callback(self._guider.model_patcher, total)
        shown = self._prediction if latents is None else latents
        self._report(step - 1, shown, shown, total)

    def fit_memory(self) -> bool:
        """Measure the networks and set :attr:`rows` and the decoder's tiles by the free memory.

        Returns:
            Whether the blocks of the model are to be recomputed in the backward pass.
        """
        settings, shape = self._settings, self.latent_shape
        free = MARGIN * comfy.model_management.get_free_memory(self.device)
        self._vae.prepare((1, *shape), Gradients.VAE in settings.gradients, settings.checkpointing)
        if Gradients.MODEL not in settings.gradients:
            row = self._guider.model_patcher.memory_required((BRANCHES, *shape))
            self.rows = max(1, min(settings.rows, int(free // row)))
            self._vae.lay_out(shape[-2:], free, reserved=0.0)
            return False
        z, t = self._probe()
        network = self._model.diffusion_model
        cost = measure(lambda v: self.denoise(v, t), z, network, outer_blocks(network))
        chained = Gradients.CHAIN in settings.gradients
        # The decoder's graph is the smaller one, and the one that is not needed for products with the covariance.
        found = form(cost, settings.rows, free - self._vae.least if chained else free, settings.checkpointing)
        self.rows = found.rows
        block = found.rows * cost.block if found.recomputed and chained else 0.0
        self._vae.lay_out(shape[-2:], free - cost.total(*found) if chained else free, block)
        return found.recomputed

    def check(self) -> bool:
        """Compare gradients with finite differences; returns whether saved tensors need a guard against changes.

        Raises:
            InputError: a network has no gradient, or a wrong one.
        """
        self.reached = "in the check of the gradient"
        (z, t), gradients = self._probe(), self._settings.gradients
        guard = False
        with ExitStack() as stack:
            if Gradients.MODEL in gradients:
                guard = mutates_saved_tensors(lambda v: self.denoise(v, t), z)
                if guard:
                    stack.enter_context(torch.autograd.graph.allow_mutation_on_saved_tensors())
                linear = self.schedule.to_host(torch.ones_like(z), t)[0].mean().item()
                check_gradient("model", lambda v: self.denoise(v, t), z, linear)
            if Gradients.VAE in gradients:
                check_gradient("vae", self.decode, self.denoise(z, t).detach(), 0.0)
        return guard

    def _probe(self) -> tuple[Tensor, Tensor]:
        """One row of noise, and a time."""
        z = torch.randn(1, *self.latent_shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        return z, torch.full((1,), _PROBE_TIME, device=self.device)

    def _run(self, needed: Gradients, network: Callable[[], Tensor]) -> Tensor:
        """Call a network; in inference mode unless gradients through it are needed."""
        if needed in self._settings.gradients:
            result = network()
        else:
            with torch.inference_mode():
                result = network()
            result = result.clone()
        self._passes += 1
        if self._settings.display is not None:
            self._settings.display.passes(self._passes)
        return result


def with_host_prior(
    guider: Any,
    vae: Any,
    part: Part,
    work: Callable[[HostPrior], Result],
    **settings: Any,
) -> Result:
    """Run ``work`` with the model behind ``guider`` loaded and differentiable, and restore the host's settings.

    Can be called within a ``guider.sample``, as samplers do.

    Args:
        part: the padded picture, of sides that are multiples of :func:`picture_multiple`. Conditions move to it.
        settings: of :class:`RunSettings`.

    Raises:
        InputError: model and VAE do not match, a guidance strength is no finite number, the model cannot be
            differentiated, or memory is exhausted.
    """
    run, host_vae = RunSettings(**settings), HostVAE(vae)
    _check_strengths(guider)
    guider = _private(guider, host_vae, run)
    place_conditions(guider, part)
    latent = empty_latent(guider.model_patcher, host_vae, part.size)
    sigmas = run.sigmas
    if sigmas is None:
        sampling = guider.model_patcher.get_model_object("model_sampling")
        sigmas = torch.tensor([float(sampling.sigma_max), 0.0])
    task = _Task(work, host_vae, run)
    try:
        guider.sample(latent, latent, task, sigmas, disable_pbar=True, seed=0)
    except comfy.model_management.OOM_EXCEPTION as error:
        comfy.model_management.soft_empty_cache()
        raise InputError(task.out_of_memory(part.size)) from error
    return task.result


def _check_strengths(guider: Any) -> None:
    """ComfyUI does not check numbers that reach a guider by a link."""
    for name in _STRENGTHS & set(vars(guider)):
        if not is_finite(getattr(guider, name)):
            raise InputError(f"{name} of the guider is {getattr(guider, name)!r}; it must be a finite number")


def picture_multiple(vae: Any) -> int:
    """Height and width of an image must be multiples of this."""
    return PICTURE_CELLS * int(vae.spacial_compression_decode())


def pad_to_model(observation: Observation, vae: Any) -> tuple[Observation, Part]:
    """The observation padded to sides that the model accepts, and its picture with the padding."""
    with torch.inference_mode(False):
        padded = pad_observation(observation, picture_multiple(vae))
    sides, size = (one.operator.picture_size(tuple(one.y.shape[2:])) for one in (padded, observation))
    return padded, Part(size, sides, cell=HostVAE(vae).factor)


def empty_latent(patcher: Any, vae: HostVAE, picture_size: tuple[int, int]) -> Tensor:
    """Zeros of the model's latent shape for an image, ``[1, channels, (1,) h, w]``.

    Raises:
        InputError: the VAE does not match the model.
    """
    latent_format = patcher.get_model_object("latent_format")
    channels, dimensions = latent_format.latent_channels, latent_format.latent_dimensions
    if vae.latent_channels != channels or dimensions not in (2, 3):
        raise InputError(
            f"vae has latents of {vae.latent_channels} channels and the model of {channels}: use the VAE of the model"
        )
    frames = (1,) * (dimensions - 2)
    return torch.zeros(1, channels, *frames, *(side // vae.factor for side in picture_size))


def _private(guider: Any, vae: HostVAE, settings: RunSettings) -> Any:
    """A copy of the guider with model settings that do not affect the user's graph.

    Raises:
        InputError: conditions with different weight hooks, which would give a wrong gradient.
    """
    guider = copy.copy(guider)
    patcher = guider.model_patcher.clone()
    if Gradients.MODEL in settings.gradients:
        if comfy.samplers.get_total_hook_groups_in_conds(guider.original_conds) > 1:
            raise InputError(
                "guider has conditions with different weight hooks (scheduled LoRA), and VIPaint cannot differentiate "
                "through a model that changes between conditions: use the same hooks for all conditions, or load the "
                "LoRA with LoraLoader"
            )
        _prepare_for_gradients(patcher)

    def reserve(executor, model, noise_shape, *arguments, **options):
        row = (1, *noise_shape[1:])
        needed = vae.patcher.model_size() + reservation(patcher, vae, row, settings)
        # The host reserves so many times the memory of a row.
        rows = math.ceil(needed / patcher.memory_required(row))
        return executor(model, [rows, *row[1:]], *arguments, **options)

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
    """The sampler that passes the loaded model to ``work``."""

    def __init__(self, work: Callable[[HostPrior], Any], vae: HostVAE, settings: RunSettings):
        self._work, self._vae, self._settings = work, vae, settings
        self._prior: HostPrior | None = None
        self._recomputed = False
        self.result: Any = None

    def sample(self, guider, sigmas, arguments, callback, noise, latent, denoise_mask=None, disable_pbar=False):
        settings, patcher = self._settings, guider.model_patcher
        memory = reservation(patcher, self._vae, (1, *latent.shape[1:]), settings)
        # In one call, or loading either might throw out the other.
        comfy.model_management.load_models_gpu([patcher, self._vae.patcher], memory_required=memory)
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            stack.enter_context(unquantised(self._vae.network))
            prior = self._prior = HostPrior(guider, self._vae, tuple(latent.shape[1:]), arguments, settings)
            if settings.gradients:
                stack.enter_context(differentiable())
                make_attributes_differentiable(guider.inner_model.latent_format)
            if Gradients.VAE in settings.gradients:
                make_differentiable(self._vae.network)
            if Gradients.MODEL in settings.gradients:
                self._make_differentiable(guider)
            self._recomputed = prior.fit_memory()
            if self._recomputed:
                blocks = outer_blocks(guider.inner_model.diffusion_model)
                stack.enter_context(checkpointed_blocks(blocks))
            if settings.gradients and prior.check():
                stack.enter_context(torch.autograd.graph.allow_mutation_on_saved_tensors())
            self.result = self._work(prior)
        return latent

    def out_of_memory(self, picture_size: tuple[int, int]) -> str:
        """The message for exhausted memory, with the inputs that can still be lowered."""
        settings, prior = self._settings, self._prior
        # Weights are loaded beside one row at least, whatever the batch.
        reached, rows = (prior.reached, prior.rows) if prior else ("while the model is loaded", 1)
        recomputable = settings.checkpointing != "on" and not self._recomputed
        remedies = memory_remedies(settings.gradients, rows, recomputable)
        size = f"{picture_size[1]} x {picture_size[0]} pixels"
        together = f"{rows} samples of {size} at once" if rows > 1 else f"one sample of {size}"
        return f"out of memory {reached}, with {together}: {remedies}"

    def _make_differentiable(self, guider: Any) -> None:
        if any(is_dynamic(extra) for extra in guider.loaded_models):
            raise InputError(
                "guider has a ControlNet with weights in reused memory (dynamic VRAM), which makes gradients wrong: "
                "start ComfyUI with --disable-dynamic-vram, or remove the ControlNet"
            )
        for network in (guider.inner_model, *(extra.model for extra in guider.loaded_models)):
            make_differentiable(network)
