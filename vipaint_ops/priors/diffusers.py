"""Any latent diffusion model of diffusers as a :class:`~vipaint_ops.diffusion.prior.DiffusionPrior`."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..diffusion.schedule import NoiseSchedule
from ..errors import InputError

Conditioning = Mapping[str, Tensor]
"""Arguments of the network besides latent and time, each ``[1, ...]``: ``encoder_hidden_states``, ``class_labels``,
``pooled_projections``, or SDXL's ``text_embeds``."""

# The clean latent from what the network predicts, given z, alpha and sigma.
_CLEAN: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda out, z, alpha, sigma: (z - sigma * out) / alpha,
    "v_prediction": lambda out, z, alpha, sigma: alpha * z - sigma * out,
    "sample": lambda out, z, alpha, sigma: out,
    "flow": lambda out, z, alpha, sigma: z - sigma * out,
}
_DENOISERS = ("UNet2DModel", "UNet2DConditionModel", "SD3Transformer2DModel")


class DiffusersPrior:
    """A frozen diffusers denoiser with its AutoencoderKL; latents are scaled and shifted as the denoiser expects.

    Args:
        denoiser: UNet2DModel, UNet2DConditionModel or SD3Transformer2DModel.
        autoencoder: AutoencoderKL with as many latent channels as the denoiser has.
        schedule: the noise schedule the denoiser was trained with.
        prediction_type: what the denoiser predicts: "epsilon", "v_prediction" (alpha eps - sigma z_0), "sample"
            (z_0) or "flow" (eps - z_0).
        conditioning: what the denoiser is told besides latent and time.
        negative: the same for the unguided prediction; needed when ``cfg`` is not 1.
        cfg: classifier-free guidance (Ho & Salimans, eq. 6): unguided + cfg * (guided - unguided). Other than 1 it
            doubles the cost of a call, and the result is no longer the mean of z_0 under the model.
        steps: steps of training time: the denoiser sees t (steps - 1), or sigma * steps where it predicts flow.
        label: what :attr:`identity` says of the conditioning.

    Raises:
        InputError: an unsupported network or prediction type, or channels that disagree.
    """

    data_std = 1.0
    """The autoencoder's scaling factor brings latents to unit variance."""

    def __init__(
        self,
        denoiser: nn.Module,
        autoencoder: nn.Module,
        schedule: NoiseSchedule,
        prediction_type: str,
        *,
        conditioning: Conditioning | None = None,
        negative: Conditioning | None = None,
        cfg: float = 1.0,
        steps: int = 1000,
        label: str = "",
    ):
        _check_networks(denoiser, autoencoder)
        if prediction_type not in _CLEAN:
            raise InputError(f"prediction_type is {prediction_type!r}; choose one of {', '.join(_CLEAN)}")
        if not math.isfinite(cfg) or (cfg != 1 and negative is None):
            raise InputError(f"cfg is {cfg}; it must be finite, and 1 for a model without conditioning")
        self._denoiser: Any = denoiser.eval().requires_grad_(False)
        self._autoencoder: Any = autoencoder.eval().requires_grad_(False)
        self.schedule, self._prediction_type, self._cfg, self._steps = schedule, prediction_type, cfg, steps
        first = next(denoiser.parameters())
        self.device, self._network_dtype = first.device, first.dtype
        self.dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
        rows = [conditioning or {}] if cfg == 1 else [conditioning or {}, negative or {}]
        self._conditioning = [
            {name: v.to(first.device, first.dtype if v.is_floating_point() else v.dtype) for name, v in row.items()}
            for row in rows
        ]
        config, autoencoder_config = _config(denoiser), _config(autoencoder)
        self._scale = float(autoencoder_config["scaling_factor"])
        self._shift = float(autoencoder_config.get("shift_factor") or 0.0)
        self.picture_factor = 2 ** (len(autoencoder_config["block_out_channels"]) - 1)
        """Sides of a picture over sides of its latent."""
        self.picture_multiple = self.picture_factor * _latent_multiple(config)
        """What both sides of a picture must be a multiple of."""
        size = config.get("sample_size") or 64
        height, width = (size, size) if isinstance(size, int) else size
        self.latent_shape: tuple[int, ...] = (int(config["in_channels"]), height, width)
        self.identity = f"{type(denoiser).__name__}+{type(autoencoder).__name__} {_fingerprint(denoiser, autoencoder)}"
        if label:
            self.identity += f" ({label})"

    def for_size(self, height: int, width: int) -> DiffusersPrior:
        """The same model over pictures of ``height`` x ``width`` pixels.

        Raises:
            InputError: a side is not a multiple of ``picture_multiple``, or beyond the model's position table.
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
        alpha, sigma = (v.to(z.dtype).view(-1, 1, 1, 1) for v in (self.schedule.alpha(t), self.schedule.sigma(t)))
        timestep = self.schedule.sigma(t) * self._steps if self._prediction_type == "flow" else t * (self._steps - 1)
        return _CLEAN[self._prediction_type](self._predict(z, timestep).to(z.dtype), z, alpha, sigma)

    def decode(self, z0: Tensor) -> Tensor:
        """Latent to picture, differentiable, unclamped."""
        return self._autoencoder.decode(self._to_autoencoder(z0 / self._scale + self._shift)).sample.to(z0.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """Picture to latent, the mean of the encoder."""
        mean = self._autoencoder.encode(self._to_autoencoder(x)).latent_dist.mode()
        return (mean.to(x.dtype) - self._shift) * self._scale

    def _predict(self, z: Tensor, timestep: Tensor) -> Tensor:
        copies = len(self._conditioning)
        inputs = z.to(self._network_dtype).repeat(copies, 1, 1, 1)
        arguments: dict[str, Any] = {
            name: torch.cat([row[name].expand(len(z), *row[name].shape[1:]) for row in self._conditioning])
            for name in self._conditioning[0]
        }
        if "text_embeds" in arguments:
            height, width = (side * self.picture_factor for side in z.shape[2:])
            time_ids = z.new_tensor([[height, width, 0, 0, height, width]]).expand(len(inputs), -1)
            arguments["added_cond_kwargs"] = {"text_embeds": arguments.pop("text_embeds"), "time_ids": time_ids}
        out = self._denoiser(inputs, timestep=timestep.repeat(copies), **arguments).sample
        if copies == 1:
            return out
        guided, unguided = out.chunk(2)
        return unguided + self._cfg * (guided - unguided)

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
            f"the denoiser takes {channels} channels and the autoencoder makes {latent}; "
            "use a plain text-to-image model, not one made for inpainting or editing"
        )


def _latent_multiple(config: dict[str, Any]) -> int:
    """What the sides of a latent must be a multiple of: a patch, or the strides of a UNet."""
    return int(config["patch_size"]) if "patch_size" in config else 2 ** (len(config["block_out_channels"]) - 1)


def _fingerprint(*networks: nn.Module) -> str:
    """A hash of the signs of the first weights of every tensor: the same in every precision, unlike their values."""
    digest = hashlib.sha256()
    for network in networks:
        for name, value in network.state_dict().items():
            signs = value.flatten()[:256].signbit().cpu().numpy().tobytes()
            digest.update(f"{name} {tuple(value.shape)}".encode() + signs)
    return digest.hexdigest()[:12]


def schedule_of(scheduler: Any) -> tuple[NoiseSchedule, str, int]:
    """Schedule, prediction type and training steps that a diffusers scheduler describes.

    Raises:
        InputError: neither a discrete variance-preserving scheduler nor a flow-matching one with a constant shift.
    """
    config, name = scheduler.config, type(scheduler).__name__
    if name.startswith("FlowMatch"):
        if config.get("use_dynamic_shifting"):
            raise InputError(f"scheduler {name} shifts noise levels by picture size; only constant shifts work")
        return NoiseSchedule.rectified_flow(config.get("shift", 1.0)), "flow", config["num_train_timesteps"]
    betas = getattr(scheduler, "betas", None)
    if betas is None:
        raise InputError(f"scheduler {name} is not supported: it must be a discrete DDPM schedule or flow matching")
    return NoiseSchedule.vp(betas), config.get("prediction_type", "epsilon"), len(betas)


def from_pipeline(
    path: str | Path,
    prompt: str = "",
    negative_prompt: str = "",
    cfg: float = 1.0,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    config: str | Path | None = None,
) -> DiffusersPrior:
    """Load a diffusers pipeline folder or a single-file checkpoint (.safetensors, .ckpt). Nothing is ever downloaded.

    Args:
        path: a folder with ``model_index.json``, or a file.
        prompt, negative_prompt, cfg: conditioning of models that take text; they become part of the identity.
        config: for a single file, a diffusers folder of the same model family, read for its configuration (and for
            what the file lacks); none looks in the local Hugging Face cache.

    Raises:
        InputError: the path is no model, a file is missing, corrupt or unsafe to read, or the model is not supported.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"prior {str(path)!r} does not exist; give a diffusers folder or a checkpoint file")
    try:
        pipeline = _load_folder(path, dtype) if path.is_dir() else _load_file(path, dtype, config)
        return _from_loaded(pipeline, prompt, negative_prompt, cfg, torch.device(device))
    except (InputError, torch.OutOfMemoryError, ModuleNotFoundError):
        raise
    except Exception as error:  # what diffusers raises on a broken model is of no one kind
        raise InputError(f"prior {str(path)!r} cannot be loaded: {_one_line(error)}") from error


def _load_folder(path: Path, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline

    index = _pipeline_index(path)
    # Two take no part in denoising (and a safety checker is large); others may be saved as absent, such as SD3's T5.
    unused = ("safety_checker", "image_encoder")
    left_out: dict[str, Any] = {k: None for k, v in index.items() if k in unused or v == [None, None]}
    plain = {file.name for file in path.glob("*/*.safetensors") if ".fp16." not in file.name}
    variant = "fp16" if not plain and any(path.glob("*/*.fp16.*")) else None
    return DiffusionPipeline.from_pretrained(
        str(path), torch_dtype=dtype, local_files_only=True, variant=variant, **left_out
    )


def _load_file(path: Path, dtype: torch.dtype, config: str | Path | None) -> Any:
    import diffusers

    if path.suffix not in (".safetensors", ".ckpt"):
        raise InputError(f"prior {str(path)!r} is neither a folder, a .safetensors nor a .ckpt file")
    folder = _cached_config(path) if config is None else Path(config)
    pipeline_class = getattr(diffusers, _pipeline_index(folder)["_class_name"])
    return pipeline_class.from_single_file(str(path), config=str(folder), torch_dtype=dtype, local_files_only=True)


def _cached_config(path: Path) -> Path:
    """The folder of the local Hugging Face cache whose configuration fits a single-file checkpoint."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint
    from huggingface_hub import snapshot_download

    repository = fetch_diffusers_config(load_single_file_checkpoint(str(path)))["pretrained_model_name_or_path"]
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (OSError, ValueError) as error:
        raise InputError(
            f"prior {str(path)!r} needs the configuration of {repository!r}, which is not on this machine; "
            "give a diffusers folder of the same model family with --prior-config"
        ) from error


def _pipeline_index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(folder)!r} is not a diffusers folder: model_index.json is missing or broken") from error
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise InputError(f"{str(folder)!r} names a pipeline of its own in model_index.json; only diffusers' are loaded")
    parts = [part[0] for part in index.values() if isinstance(part, list) and part]
    if "transformers" in parts and importlib.util.find_spec("transformers") is None:
        raise InputError(f"{str(folder)!r} reads its prompt with a package that is missing: pip install transformers")
    return index


def _from_loaded(pipeline: Any, prompt: str, negative_prompt: str, cfg: float, device: torch.device) -> DiffusersPrior:
    components = pipeline.components
    denoiser = components.get("unet") or components.get("transformer")
    autoencoder = components.get("vae") or components.get("vqvae")
    if denoiser is None or autoencoder is None:
        raise InputError(f"{type(pipeline).__name__} has no UNet or transformer with an autoencoder of latents")
    _check_networks(denoiser, autoencoder)
    schedule, prediction_type, steps = schedule_of(pipeline.scheduler)
    takes_text = type(denoiser).__name__ != "UNet2DModel"
    if not takes_text and (prompt or negative_prompt or cfg != 1):
        raise InputError("this model takes no text: leave out the prompts, and cfg at 1")
    rows = _encode_prompts(pipeline, prompt, negative_prompt, device) if takes_text else (None, None)
    if _config(autoencoder).get("force_upcast") and autoencoder.dtype == torch.float16:
        autoencoder.float()
    return DiffusersPrior(
        denoiser.to(device), autoencoder.to(device), schedule, prediction_type, conditioning=rows[0], negative=rows[1],
        cfg=cfg, steps=steps, label=f"prompt {prompt!r} not {negative_prompt!r} cfg {cfg:g}" if takes_text else "",
    )  # fmt: skip


@torch.no_grad()
def _encode_prompts(
    pipeline: Any, prompt: str, negative_prompt: str, device: torch.device
) -> tuple[Conditioning, Conditioning]:
    """The conditioning of both prompts; the text encoders only visit ``device``, and leave it to the denoiser."""
    encoders = [m for name, m in pipeline.components.items() if name.startswith("text_encoder") and m is not None]
    for encoder in encoders:
        encoder.to(device)
    family = type(pipeline.components.get("transformer") or pipeline.unet).__name__
    pooled_name = "pooled_projections" if family == "SD3Transformer2DModel" else "text_embeds"
    # SDXL was trained with zeros, not with the encoding of "", where there is no negative prompt.
    arguments: dict[str, Any] = {"negative_prompt": negative_prompt or None, "num_images_per_prompt": 1}
    if family == "SD3Transformer2DModel":
        arguments.update(prompt_2=None, prompt_3=None)
    encoded = pipeline.encode_prompt(prompt, device=device, do_classifier_free_guidance=True, **arguments)
    for encoder in encoders:
        encoder.to("cpu")
    names = ("encoder_hidden_states", pooled_name)
    return dict(zip(names, encoded[0::2], strict=False)), dict(zip(names, encoded[1::2], strict=False))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
