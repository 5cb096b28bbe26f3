"""Latent diffusion models of diffusers as a :class:`~vipaint_ops.diffusion.prior.DiffusionPrior`."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..diffusion.schedule import NoiseSchedule
from ..errors import InputError, missing_package
from .pipelines import load_pipeline

Conditioning = Mapping[str, Tensor]
"""Arguments of a denoiser besides latent and time, each ``[1, ...]``: ``encoder_hidden_states``, ``class_labels``,
``pooled_projections``, or SDXL's ``text_embeds``."""

Load = Callable[[Path, torch.dtype, str | Path | None], tuple[Any, list[str]]]
"""Loads a pipeline, as :func:`~vipaint_ops.priors.pipelines.load_pipeline`."""

# The clean latent from the network's output, z, alpha and sigma.
_CLEAN: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda out, z, alpha, sigma: (z - sigma * out) / alpha,
    "v_prediction": lambda out, z, alpha, sigma: alpha * z - sigma * out,
    "sample": lambda out, z, alpha, sigma: out,
    "flow": lambda out, z, alpha, sigma: z - sigma * out,
}
_LAST_SIGNAL = 4.8973451890853435e-08
"""alpha^2 at the last step of a schedule with zero terminal SNR, as in ComfyUI: with 0, the log-SNR is infinite."""
_DENOISERS = ("UNet2DModel", "UNet2DConditionModel", "SD3Transformer2DModel")


@dataclass(frozen=True)
class Training:
    """The parametrisation that a denoiser was trained with.

    Attributes:
        schedule: the noise schedule.
        prediction_type: the output of the denoiser: "epsilon", "v_prediction" (alpha eps - sigma z_0), "sample" (z_0)
            or "flow" (eps - z_0).
        steps: number of training steps. The time input of the denoiser is t (steps - 1); for "flow", sigma * steps.

    Raises:
        InputError: the prediction type is unknown.
    """

    schedule: NoiseSchedule
    prediction_type: str
    steps: int = 1000

    def __post_init__(self) -> None:
        if self.prediction_type not in _CLEAN:
            raise InputError(f"prediction_type is {self.prediction_type!r}; choose one of {', '.join(_CLEAN)}")


@dataclass(frozen=True)
class Conditions:
    """The conditioning of a denoiser, with classifier-free guidance.

    Attributes:
        positive: conditioning of the guided prediction.
        negative: conditioning of the unguided prediction; required if ``cfg`` is not 1.
        cfg: scale of the guidance (Ho & Salimans, eq. 6): unguided + cfg * (guided - unguided). Values other than 1
            double the cost of a call, and the prediction is then not the mean of z_0 under the model.
        label: description of the conditioning in :attr:`DiffusersPrior.identity`.

    Raises:
        InputError: ``cfg`` is not finite, or not 1 without ``negative``.
    """

    positive: Conditioning = field(default_factory=dict)
    negative: Conditioning | None = None
    cfg: float = 1.0
    label: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.cfg) or (self.cfg != 1 and self.negative is None):
            raise InputError(f"cfg is {self.cfg}; it must be finite, and 1 for a model without conditioning")


class DiffusersPrior:
    """A frozen diffusers denoiser with its AutoencoderKL. Latents have the scale and shift of the denoiser's input.

    Args:
        denoiser: UNet2DModel, UNet2DConditionModel or SD3Transformer2DModel.
        autoencoder: AutoencoderKL with the latent channels of the denoiser.
        training: schedule and prediction type of the denoiser.
        conditions: conditioning of the denoiser. Default: none.

    Raises:
        InputError: a network is not supported, or the latent channels differ.
    """

    data_std = 1.0
    """The autoencoder's scaling factor gives latents unit variance."""

    weights_file: str | None = None
    """Names the file of the weights, for a prior that is the same in ComfyUI."""

    def __init__(
        self,
        denoiser: nn.Module,
        autoencoder: nn.Module,
        training: Training,
        conditions: Conditions | None = None,
    ):
        _check_networks(denoiser, autoencoder)
        self._denoiser: Any = denoiser.eval().requires_grad_(False)
        self._autoencoder: Any = autoencoder.eval().requires_grad_(False)
        conditions = conditions or Conditions()
        self.schedule, self._training, self._cfg = training.schedule, training, conditions.cfg
        first = next(denoiser.parameters())
        self.device, self._network_dtype = first.device, first.dtype
        self.dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
        rows = [conditions.positive] if conditions.cfg == 1 else [conditions.positive, conditions.negative or {}]
        self._conditioning = [
            {name: v.to(first.device, first.dtype if v.is_floating_point() else v.dtype) for name, v in row.items()}
            for row in rows
        ]
        unused = type(denoiser).__name__ == "UNet2DConditionModel" and not _takes_text(denoiser)
        self._constants = {"encoder_hidden_states": None} if unused else {}
        config, autoencoder_config = _config(denoiser), _config(autoencoder)
        self._scale = float(autoencoder_config["scaling_factor"])
        self._shift = float(autoencoder_config.get("shift_factor") or 0.0)
        self.picture_factor = 2 ** (len(autoencoder_config["block_out_channels"]) - 1)
        """Side of a picture / side of its latent."""
        self.picture_multiple = self.picture_factor * _latent_multiple(config)
        """Both sides of a picture must be multiples of this."""
        size = config.get("sample_size") or 64
        height, width = (size, size) if isinstance(size, int) else size
        self.latent_shape: tuple[int, ...] = (int(config["in_channels"]), height, width)
        self.identity = f"{type(denoiser).__name__}+{type(autoencoder).__name__} {_fingerprint(denoiser, autoencoder)}"
        if conditions.label:
            self.identity += f" ({conditions.label})"

    def for_size(self, height: int, width: int) -> DiffusersPrior:
        """The same model for pictures of ``height`` x ``width`` pixels.

        Raises:
            InputError: a side is not a multiple of ``picture_multiple``, or too large for the model's position table.
        """
        multiple = self.picture_multiple
        if height % multiple or width % multiple:
            raise InputError(f"picture is {height}x{width}; this model needs sides that are multiples of {multiple}")
        config = _config(self._denoiser)
        largest = config.get("pos_embed_max_size", math.inf) * config.get("patch_size", 1) * self.picture_factor
        if max(height, width) > largest:
            raise InputError(f"picture is {height}x{width}; this model takes sides up to {largest} pixels")
        other = copy.copy(self)
        other.latent_shape = (self.latent_shape[0], height // self.picture_factor, width // self.picture_factor)
        return other

    def denoise(self, z: Tensor, t: Tensor) -> Tensor:
        """E[z_0 | z_t = z] for times ``t`` of shape ``[batch]``, in the dtype of ``z``; differentiable in ``z``."""
        return self._guided(*self._predict(z, t, self._conditioning).chunk(len(self._conditioning)))

    def denoise_with_condition(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction of :meth:`denoise`, and that of the positive conditioning alone."""
        rows = self._predict(z, t, self._conditioning).chunk(len(self._conditioning))
        return self._guided(*rows), rows[0]

    def denoise_condition(self, z: Tensor, t: Tensor) -> Tensor:
        """The prediction of the positive conditioning alone."""
        return self._predict(z, t, self._conditioning[:1])

    def decode(self, z0: Tensor) -> Tensor:
        """Latent to picture, unclamped; differentiable in ``z0``."""
        return self._autoencoder.decode(self._to_autoencoder(z0 / self._scale + self._shift)).sample.to(z0.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """Picture to latent: the mean of the encoder's distribution."""
        mean = self._autoencoder.encode(self._to_autoencoder(x)).latent_dist.mode()
        return (mean.to(x.dtype) - self._shift) * self._scale

    def _guided(self, conditional: Tensor, unconditional: Tensor | None = None) -> Tensor:
        if unconditional is None:
            return conditional
        return unconditional + self._cfg * (conditional - unconditional)

    def _predict(self, z: Tensor, t: Tensor, conditioning: list[dict[str, Tensor]]) -> Tensor:
        """E[z_0 | z_t = z] under each conditioning, one after the other: ``[conditionings * batch, *latent_shape]``."""
        kind, steps = self._training.prediction_type, self._training.steps
        timestep = self.schedule.sigma(t) * steps if kind == "flow" else t * (steps - 1)
        copies = len(conditioning)
        z, t, timestep = z.repeat(copies, 1, 1, 1), t.repeat(copies), timestep.repeat(copies)
        rows = len(z) // copies
        arguments: dict[str, Any] = {
            name: torch.cat([row[name].expand(rows, *row[name].shape[1:]) for row in conditioning])
            for name in conditioning[0]
        }
        if "text_embeds" in arguments:
            height, width = (side * self.picture_factor for side in z.shape[2:])
            time_ids = z.new_tensor([[height, width, 0, 0, height, width]]).expand(len(z), -1)
            arguments["added_cond_kwargs"] = {"text_embeds": arguments.pop("text_embeds"), "time_ids": time_ids}
        out = self._denoiser(z.to(self._network_dtype), timestep=timestep, **self._constants, **arguments).sample
        alpha, sigma = (v.to(z.dtype).view(-1, 1, 1, 1) for v in (self.schedule.alpha(t), self.schedule.sigma(t)))
        return _CLEAN[kind](out.to(z.dtype), z, alpha, sigma)

    def _to_autoencoder(self, x: Tensor) -> Tensor:
        return x.to(next(self._autoencoder.parameters()).dtype)


def _config(module: nn.Module) -> dict[str, Any]:
    return dict(module.config)  # type: ignore[arg-type]


def _check_networks(denoiser: nn.Module, autoencoder: nn.Module) -> None:
    if type(denoiser).__name__ not in _DENOISERS or type(autoencoder).__name__ != "AutoencoderKL":
        raise InputError(
            f"model is {type(denoiser).__name__} with {type(autoencoder).__name__}; supported are "
            f"{', '.join(_DENOISERS)} with AutoencoderKL"
        )
    channels, latent = _config(denoiser)["in_channels"], _config(autoencoder)["latent_channels"]
    if channels != latent:
        raise InputError(
            f"the denoiser has {channels} channels and the autoencoder {latent}; "
            "use a plain text-to-image model, not one made for inpainting or editing"
        )


def _latent_multiple(config: dict[str, Any]) -> int:
    """Sides of a latent must be multiples of this: the patch size, or the total stride of a UNet."""
    return int(config["patch_size"]) if "patch_size" in config else 2 ** (len(config["block_out_channels"]) - 1)


def _fingerprint(*networks: nn.Module) -> str:
    """A hash of the signs of the first 256 weights of every tensor: unlike values, signs are equal in any precision."""
    digest = hashlib.sha256()
    for network in networks:
        for name, value in network.state_dict().items():
            signs = value.flatten()[:256].signbit().cpu().numpy().tobytes()
            digest.update(f"{name} {tuple(value.shape)}".encode() + signs)
    return digest.hexdigest()[:12]


def training_of(scheduler: Any) -> Training:
    """The parametrisation of the model of a diffusers scheduler.

    A schedule with zero terminal SNR ends in ComfyUI's smallest signal instead.

    Raises:
        InputError: the scheduler is of another kind than discrete variance-preserving, or flow matching with a
            constant shift.
    """
    config, name = scheduler.config, type(scheduler).__name__
    if name.startswith("FlowMatch"):
        if config.get("use_dynamic_shifting"):
            raise InputError(
                f"scheduler {name} has a shift that depends on the picture size; only constant shifts work"
            )
        return Training(NoiseSchedule.rectified_flow(config.get("shift", 1.0)), "flow", config["num_train_timesteps"])
    betas = getattr(scheduler, "betas", None)
    if betas is None:
        raise InputError(f"scheduler {name} is not supported: it must be a discrete DDPM schedule or flow matching")
    betas = betas.double()
    if betas[-1] == 1:
        # At most half of the signal before it, which may be smaller already (the schedule of DDPM).
        betas[-1] = 1 - min(_LAST_SIGNAL / (1 - betas[:-1]).prod().item(), 0.5)
    return Training(NoiseSchedule.vp(betas), config.get("prediction_type", "epsilon"), len(betas))


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
        conditions = _conditions(pipeline, lacking, prompt, negative_prompt, cfg, torch.device(device))
        return _from_loaded(pipeline, conditions, torch.device(device))
    except torch.OutOfMemoryError:
        raise
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"prior {str(path)!r}: {error}") from error
    except Exception as error:  # for a broken model, diffusers raises exceptions of many types
        raise InputError(f"prior {str(path)!r} cannot be loaded: {one_line(error)}") from error


def _networks(pipeline: Any) -> tuple[Any, Any]:
    components = pipeline.components
    denoiser = components.get("unet") or components.get("transformer")
    autoencoder = components.get("vae") or components.get("vqvae")
    if denoiser is None or autoencoder is None:
        raise InputError(f"{type(pipeline).__name__} has no UNet or transformer, or no autoencoder")
    _check_networks(denoiser, autoencoder)
    return denoiser, autoencoder


def _from_loaded(pipeline: Any, conditions: Conditions | None, device: torch.device) -> DiffusersPrior:
    denoiser, autoencoder = _networks(pipeline)
    for network in (denoiser, autoencoder):
        _check_finite(type(network).__name__, network.state_dict())
    training = training_of(pipeline.scheduler)
    if _config(autoencoder).get("force_upcast") and autoencoder.dtype == torch.float16:
        autoencoder.float()
    return DiffusersPrior(denoiser.to(device), autoencoder.to(device), training, conditions)


def _conditions(
    pipeline: Any, lacking: list[str], prompt: str, negative_prompt: str, cfg: float, device: torch.device
) -> Conditions | None:
    denoiser, _ = _networks(pipeline)
    if not _takes_text(denoiser):
        if prompt or negative_prompt or cfg != 1:
            raise InputError("this model takes no text: leave out the prompts and cfg")
        return None
    text = {name: part for name, part in pipeline.components.items() if name.startswith(("tokenizer", "text_encoder"))}
    # Only Stable Diffusion 3 has a third encoder, and works without.
    if absent := sorted({*lacking, *(k for k, part in text.items() if part is None and not k.endswith("_3"))}):
        raise InputError(
            f"the model has no {', '.join(absent)}, which it needs even without a prompt: add what is missing from the "
            "model's download"
        )
    label = f"prompt {prompt!r} not {negative_prompt!r} cfg {cfg:g}"
    encoded = _encode_prompts(pipeline, prompt, negative_prompt, device)
    config = _config(denoiser)
    width = config.get("encoder_hid_dim") or config.get("joint_attention_dim") or config["cross_attention_dim"]
    for row in encoded:
        _check_finite("the encoded prompt", row)
        if (size := row["encoder_hidden_states"].shape[-1]) != width:
            raise InputError(
                f"the text encoder gives {size} numbers a token and {type(denoiser).__name__} takes {width}: "
                "they are of different models"
            )
    return Conditions(*encoded, cfg, label)


def _takes_text(denoiser: nn.Module) -> bool:
    """Whether the denoiser has blocks or embeddings that need an encoded prompt."""
    if type(denoiser).__name__ != "UNet2DConditionModel":
        return type(denoiser).__name__ != "UNet2DModel"
    config = _config(denoiser)
    blocks = (*config["down_block_types"], config["mid_block_type"], *config["up_block_types"])
    return any("CrossAttn" in str(block) for block in blocks) or bool(config.get("addition_embed_type"))


def _check_finite(name: str, tensors: Mapping[str, Tensor]) -> None:
    broken = [key for key, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise InputError(f"{name} has NaN or infinite values, first in {broken[0]}: download the model again")


@torch.no_grad()
def _encode_prompts(
    pipeline: Any, prompt: str, negative_prompt: str, device: torch.device
) -> tuple[Conditioning, Conditioning]:
    """The conditioning of both prompts. The text encoders are on ``device`` only during the call, to save memory."""
    encoders = [m for name, m in pipeline.components.items() if name.startswith("text_encoder") and m is not None]
    for encoder in encoders:
        encoder.to(device)
    family = type(pipeline.components.get("transformer") or pipeline.unet).__name__
    pooled_name = "pooled_projections" if family == "SD3Transformer2DModel" else "text_embeds"
    # Without a negative prompt, SDXL was trained with zeros, not with the encoding of "".
    arguments: dict[str, Any] = {"negative_prompt": negative_prompt or None, "num_images_per_prompt": 1}
    if family == "SD3Transformer2DModel":
        arguments.update(prompt_2=None, prompt_3=None)
    encoded = pipeline.encode_prompt(prompt, device=device, do_classifier_free_guidance=True, **arguments)
    for encoder in encoders:
        encoder.to("cpu")
    names = ("encoder_hidden_states", pooled_name)
    return dict(zip(names, encoded[0::2], strict=False)), dict(zip(names, encoded[1::2], strict=False))


def one_line(error: Exception) -> str:
    """The message of an exception in one line, or its type if it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__
