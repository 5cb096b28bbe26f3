"""Latent diffusion models of diffusers as a :class:`~vipaint_ops.diffusion.prior.DiffusionPrior`."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, missing_package
from .networks import adapted, overflows
from .pipelines import load_pipeline
from .prompts import Conditions as Conditions
from .prompts import Prompts, check_finite, encoded_conditions
from .training import Training as Training
from .training import training_of as training_of

Load = Callable[[Path, torch.dtype, str | Path | None], tuple[Any, list[str]]]
"""Loads a pipeline, as :func:`~vipaint_ops.priors.pipelines.load_pipeline`."""


class DiffusersPrior:
    """A frozen diffusers denoiser with its autoencoder. Latents have the scale and shift of the denoiser's input.

    Args:
        denoiser: UNet2DModel, UNet2DConditionModel, SD3Transformer2DModel, FluxTransformer2DModel or
            QwenImageTransformer2DModel.
        autoencoder: AutoencoderKL (AutoencoderKLQwenImage for Qwen-Image) with the latent channels of the denoiser.
        training: schedule and prediction type of the denoiser.
        conditions: conditioning of the denoiser. Default: none.

    Raises:
        InputError: a network is not supported, or the latent channels differ.
    """

    data_std = 1.0
    """The autoencoder's scaling gives latents unit variance."""

    weights_file: str | None = None
    """Names the file of the weights, for a prior that is the same in ComfyUI."""

    def __init__(
        self,
        denoiser: nn.Module,
        autoencoder: nn.Module,
        training: Training,
        conditions: Conditions | None = None,
    ):
        self._denoiser, self._autoencoder = adapted(denoiser, autoencoder)
        for network in (denoiser, autoencoder):
            network.eval().requires_grad_(False)
        conditions = conditions or Conditions()
        self._training, self._cfg = training, conditions.cfg
        self.device, dtype = self._denoiser.network.device, self._denoiser.network.dtype
        self.dtype = torch.float64 if dtype == torch.float64 else torch.float32
        rows = [conditions.positive] if conditions.cfg == 1 else [conditions.positive, conditions.negative or {}]
        self._conditioning = [
            {name: v.to(self.device, dtype if v.is_floating_point() else v.dtype) for name, v in row.items()}
            for row in rows
        ]
        self.picture_factor = self._autoencoder.picture_factor
        """Side of a picture / side of its latent."""
        self.picture_multiple = self._denoiser.picture_multiple
        """Both sides of a picture must be multiples of this."""
        self._resize(*self._denoiser.side)
        self.identity = f"{type(denoiser).__name__}+{type(autoencoder).__name__} {_fingerprint(denoiser, autoencoder)}"
        if conditions.label:
            self.identity += f" ({conditions.label})"

    def for_size(self, height: int, width: int) -> DiffusersPrior:
        """The same model for pictures of ``height`` x ``width`` pixels.

        Raises:
            InputError: a side is not a multiple of ``picture_multiple``, or too large for the model's position table.
        """
        other = copy.copy(self)
        other._resize(*self._denoiser.latent_sides(height, width))
        return other

    def _resize(self, height: int, width: int) -> None:
        self.latent_shape: tuple[int, ...] = (self._denoiser.channels, height, width)
        self.schedule = self._training.schedule_for(height * width // self._denoiser.multiple**2)

    def denoise(self, z: Tensor, t: Tensor) -> Tensor:
        """E[z_0 | z_t = z] for times ``t`` of shape ``[batch]``, in the dtype of ``z``; differentiable in ``z``."""
        return self._training.clean(self.schedule, self._guided(self._outputs(z, t, self._conditioning)), z, t)

    def denoise_with_condition(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction of :meth:`denoise`, and that of the positive conditioning alone."""
        outputs = self._outputs(z, t, self._conditioning)
        guided, condition = (
            self._training.clean(self.schedule, output, z, t) for output in (self._guided(outputs), outputs[0])
        )
        return guided, condition

    def denoise_condition(self, z: Tensor, t: Tensor) -> Tensor:
        """The prediction of the positive conditioning alone."""
        return self._training.clean(self.schedule, self._outputs(z, t, self._conditioning[:1])[0], z, t)

    def decode(self, z0: Tensor) -> Tensor:
        """Latent to picture, unclamped; differentiable in ``z0``."""
        return self._autoencoder.decode(z0)

    def encode(self, x: Tensor) -> Tensor:
        """Picture to latent: the mean of the encoder's distribution."""
        return self._autoencoder.encode(x)

    def _guided(self, outputs: tuple[Tensor, ...]) -> Tensor:
        return outputs[0] if len(outputs) == 1 else self._denoiser.guided(outputs[0], outputs[1], self._cfg)

    def _outputs(self, z: Tensor, t: Tensor, conditioning: list[dict[str, Tensor]]) -> tuple[Tensor, ...]:
        """The outputs of the denoiser under each conditioning, computed together."""
        rows, copies = len(z), len(conditioning)
        timestep = self._training.timestep(self.schedule, t).repeat(copies)
        arguments = {
            name: torch.cat([row[name].expand(rows, *row[name].shape[1:]) for row in conditioning])
            for name in conditioning[0]
        }
        return self._denoiser(z.repeat(copies, 1, 1, 1), timestep, arguments).chunk(copies)


def _fingerprint(*networks: nn.Module) -> str:
    """A hash of the signs of the first 256 weights of every tensor: unlike values, signs are equal in any precision."""
    digest = hashlib.sha256()
    for network in networks:
        for name, value in network.state_dict().items():
            signs = value.flatten()[:256].signbit().cpu().numpy().tobytes()
            digest.update(f"{name} {tuple(value.shape)}".encode() + signs)
    return digest.hexdigest()[:12]


def from_pipeline(
    path: str | Path,
    prompt: str = "",
    negative_prompt: str = "",
    cfg: float = 1.0,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    config: str | Path | None = None,
    load: Load = load_pipeline,
) -> DiffusersPrior:
    """Load a diffusers pipeline folder or a single-file checkpoint (.safetensors, .ckpt). Nothing is downloaded.

    Args:
        path: a folder with ``model_index.json``, or a file.
        prompt, negative_prompt, cfg: conditioning of models that take text; part of the identity.
        device: of the networks.
        dtype: of the networks.
        config: for a single file: a diffusers folder of the same model family, with the configuration and the parts
            that are not in the file. Default: the local Hugging Face cache.
        load: gives the pipeline. It may return the one of an earlier call again.

    Raises:
        InputError: the path is not a model, a file is missing, corrupt or unsafe, or the model is not supported.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"prior {str(path)!r} does not exist; give a diffusers folder or a checkpoint file")
    try:
        pipeline, lacking = load(path, dtype, config)
        return _prior_of(pipeline, lacking, Prompts(prompt, negative_prompt, cfg), torch.device(device))
    except torch.OutOfMemoryError:
        raise
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"prior {str(path)!r}: {error}") from error
    except Exception as error:  # for a broken model, diffusers raises exceptions of many types
        raise InputError(f"prior {str(path)!r} cannot be loaded: {one_line(error)}") from error


def from_loaded(pipeline: Any, prompt: str = "", negative_prompt: str = "", cfg: float = 1.0) -> DiffusersPrior:
    """The prior of a pipeline of diffusers in memory, on the device of its denoiser.

    The prior shares the networks with the pipeline, which can still be used. Its text encoders stay where they are.
    The weights are frozen (``requires_grad`` is False). A half-precision autoencoder that overflows (SDXL) is copied
    in float32.

    Args:
        pipeline: any pipeline with a supported denoiser and its autoencoder.
        prompt, negative_prompt, cfg: as in :func:`from_pipeline`.

    Raises:
        InputError: the model is not supported, lacks a text encoder, or is moved between devices (offloading).
    """
    denoiser, _ = _networks(pipeline)
    if any(hasattr(part, "_hf_hook") for part in pipeline.components.values()):
        raise InputError(
            f"{type(pipeline).__name__} moves its networks between devices (offloading), which a prior cannot: "
            "call its remove_all_hooks() and to(device) first"
        )
    return _prior_of(pipeline, [], Prompts(prompt, negative_prompt, cfg), denoiser.device)


def _networks(pipeline: Any) -> tuple[Any, Any]:
    components = pipeline.components
    denoiser = components.get("unet") or components.get("transformer")
    autoencoder = components.get("vae") or components.get("vqvae")
    if denoiser is None or autoencoder is None:
        raise InputError(f"{type(pipeline).__name__} has no UNet or transformer, or no autoencoder")
    return denoiser, autoencoder


def _prior_of(pipeline: Any, lacking: list[str], prompts: Prompts, device: torch.device) -> DiffusersPrior:
    denoiser, autoencoder = _networks(pipeline)
    conditions = encoded_conditions(pipeline, adapted(denoiser, autoencoder)[0], lacking, prompts, device)
    for network in (denoiser, autoencoder):
        check_finite(type(network).__name__, network.state_dict())
    training = training_of(pipeline.scheduler)
    if overflows(autoencoder, autoencoder.dtype):
        autoencoder = copy.deepcopy(autoencoder).float()
    return DiffusersPrior(denoiser.to(device), autoencoder.to(device), training, conditions)


def one_line(error: Exception) -> str:
    """The message of an exception in one line, or its type if it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__
