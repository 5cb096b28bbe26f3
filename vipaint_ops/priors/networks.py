"""The networks of diffusers, each family with its own call, on latents ``[batch, channels, height, width]``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError

Conditioning = Mapping[str, Tensor]
"""Arguments of a denoiser besides latent and time, each ``[1, ...]``: ``encoder_hidden_states``, ``class_labels``,
``pooled_projections``, SDXL's ``text_embeds``, Flux's ``guidance``, Qwen-Image's ``encoder_hidden_states_mask``."""


def config_of(network: nn.Module) -> dict[str, Any]:
    """The configuration of a network of diffusers."""
    return dict(network.config)  # type: ignore[arg-type]


class Denoiser:
    """A denoiser of diffusers on unpacked latents.

    Attributes:
        channels: of its latents.
        multiple: sides of a latent must be multiples of this.
        side: height and width of the latents that it was trained on.
        largest: longest side of a latent.
        takes_text: whether it needs an encoded prompt.
    """

    autoencoder = "AutoencoderKL"
    largest: float = math.inf
    takes_text = True
    tokens = 77
    """Of a prompt, for estimates of cost."""

    def __init__(self, network: nn.Module, picture_factor: int):
        self.network: Any = network
        self.config, self.picture_factor = config_of(network), picture_factor
        self.channels = int(self.config["in_channels"])
        size = self.config.get("sample_size") or 64
        self.side: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)

    @property
    def multiple(self) -> int:
        return int(self.config["patch_size"])

    @property
    def picture_multiple(self) -> int:
        """Sides of a picture must be multiples of this."""
        return self.picture_factor * self.multiple

    def latent_sides(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latent of a picture.

        Raises:
            InputError: a side is not a multiple of ``picture_multiple``, or too large for the model's position table.
        """
        multiple, largest = self.picture_multiple, self.largest * self.picture_factor
        if height % multiple or width % multiple:
            raise InputError(f"picture is {height}x{width}; this model needs sides that are multiples of {multiple}")
        if max(height, width) > largest:
            raise InputError(f"picture is {height}x{width}; this model takes sides up to {largest} pixels")
        return height // self.picture_factor, width // self.picture_factor

    @property
    def usually_guided(self) -> bool:
        """Whether the model is made for classifier-free guidance, with two rows a prediction."""
        return self.takes_text

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the conditioning of a usual prompt."""
        shapes: dict[str, tuple[int, ...]] = {
            "encoder_hidden_states": (1, self.tokens, self.config["joint_attention_dim"])
        }
        if "pooled_projection_dim" in self.config:
            shapes["pooled_projections"] = (1, self.config["pooled_projection_dim"])
        return shapes

    def __call__(self, z: Tensor, timestep: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        """The network's output for latents ``z`` at ``timestep``, in training steps."""
        return self.network(z.to(self.network.dtype), timestep=timestep, **conditioning).sample.to(z.dtype)

    def guided(self, conditional: Tensor, unconditional: Tensor, cfg: float) -> Tensor:
        """Classifier-free guidance on two outputs (Ho & Salimans, eq. 6)."""
        return unconditional + cfg * (conditional - unconditional)


class _UNet(Denoiser):
    @property
    def multiple(self) -> int:
        return 2 ** (len(self.config["block_out_channels"]) - 1)


class _PlainUNet(_UNet):
    takes_text = False

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        return {}


class _TextUNet(_UNet):
    def __init__(self, network: nn.Module, picture_factor: int):
        super().__init__(network, picture_factor)
        blocks = (self.config["mid_block_type"], *self.config["down_block_types"], *self.config["up_block_types"])
        attends = any("CrossAttn" in str(block) for block in blocks)
        self.takes_text = attends or bool(self.config.get("addition_embed_type"))

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        config = self.config
        if not self.takes_text:
            return {}
        shapes: dict[str, tuple[int, ...]] = {
            "encoder_hidden_states": (1, self.tokens, config["encoder_hid_dim"] or config["cross_attention_dim"])
        }
        if config["addition_embed_type"] == "text_time":
            times = 6 * config["addition_time_embed_dim"]
            shapes["text_embeds"] = (1, config["projection_class_embeddings_input_dim"] - times)
        return shapes

    def __call__(self, z: Tensor, timestep: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        arguments: dict[str, Any] = dict(conditioning) if self.takes_text else {"encoder_hidden_states": None}
        if "text_embeds" in arguments:
            height, width = (side * self.picture_factor for side in z.shape[2:])
            time_ids = z.new_tensor([[height, width, 0, 0, height, width]]).expand(len(z), -1)
            arguments["added_cond_kwargs"] = {"text_embeds": arguments.pop("text_embeds"), "time_ids": time_ids}
        return super().__call__(z, timestep, arguments)


class _SD3(Denoiser):
    tokens = 77 + 256

    def __init__(self, network: nn.Module, picture_factor: int):
        super().__init__(network, picture_factor)
        self.largest = self.config["pos_embed_max_size"] * self.multiple


class _Packed(Denoiser):
    """A transformer whose tokens are 2 x 2 cells of the latent, and whose time is between 0 and 1."""

    multiple = 2

    def __init__(self, network: nn.Module, picture_factor: int):
        super().__init__(network, picture_factor)
        self.channels, self.side = self.channels // 4, (128, 128)

    def __call__(self, z: Tensor, timestep: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        height, width = z.shape[2] // 2, z.shape[3] // 2
        places = self._places(len(z), height, width, conditioning)
        tokens = self.network(
            hidden_states=pack(z).to(self.network.dtype), timestep=timestep / 1000, **places, **conditioning
        ).sample
        return unpack(tokens, height, width).to(z.dtype)

    def _places(self, rows: int, height: int, width: int, conditioning: dict[str, Tensor]) -> dict[str, Any]:
        """The arguments with the places of ``height`` x ``width`` tokens."""
        raise NotImplementedError


class _Flux(_Packed):
    tokens = 512
    usually_guided = False

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().text_shapes() | ({"guidance": (1,)} if self.config["guidance_embeds"] else {})

    def _places(self, rows: int, height: int, width: int, conditioning: dict[str, Tensor]) -> dict[str, Any]:
        text = conditioning["encoder_hidden_states"]
        ids = torch.zeros(height, width, 3, device=text.device)
        ids[..., 1] = torch.arange(height)[:, None]
        ids[..., 2] = torch.arange(width)
        return {"img_ids": ids.flatten(0, 1), "txt_ids": ids.new_zeros(text.shape[1], 3)}


class _QwenImage(_Packed):
    autoencoder = "AutoencoderKLQwenImage"
    tokens = 128

    def _places(self, rows: int, height: int, width: int, conditioning: dict[str, Tensor]) -> dict[str, Any]:
        return {"img_shapes": [[(1, height, width)]] * rows}

    def guided(self, conditional: Tensor, unconditional: Tensor, cfg: float) -> Tensor:
        """Guidance with the norm of each token of the conditional output, as in the pipeline of diffusers."""
        combined = pack(super().guided(conditional, unconditional, cfg))
        norm = pack(conditional).norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True)
        return unpack(combined * norm, conditional.shape[2] // 2, conditional.shape[3] // 2)


def pack(latents: Tensor) -> Tensor:
    """Latents ``[batch, channels, 2 h, 2 w]`` as tokens ``[batch, h w, 4 channels]``."""
    return nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The latents of ``height`` x ``width`` tokens: the inverse of :func:`pack`."""
    return nn.functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (height, width)), 2)


class Autoencoder:
    """An AutoencoderKL on latents of unit variance.

    Attributes:
        channels: of its latents.
        picture_factor: side of a picture / side of its latent.
    """

    def __init__(self, network: nn.Module):
        self.network: Any = network
        config = config_of(network)
        self.channels = int(config["latent_channels"])
        self.picture_factor = 2 ** (len(config["block_out_channels"]) - 1)
        self._scale = float(config["scaling_factor"])
        self._shift = float(config.get("shift_factor") or 0.0)

    def decode(self, z0: Tensor) -> Tensor:
        """Latent to picture, unclamped."""
        return self.network.decode((z0 / self._scale + self._shift).to(self.network.dtype)).sample.to(z0.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """Picture to latent: the mean of the encoder's distribution."""
        mean = self.network.encode(x.to(self.network.dtype)).latent_dist.mode()
        return (mean.to(x.dtype) - self._shift) * self._scale


class _VideoAutoencoder:
    """An AutoencoderKLQwenImage, for videos of one frame."""

    def __init__(self, network: nn.Module):
        self.network: Any = network
        config = config_of(network)
        self.channels = int(config["z_dim"])
        self.picture_factor = 2 ** len(config["temperal_downsample"])
        self._mean, self._std = (torch.tensor(config[f"latents_{name}"]).view(-1, 1, 1) for name in ("mean", "std"))

    def decode(self, z0: Tensor) -> Tensor:
        # Without the last line of the network's decode, which clamps: a clamped value has no gradient.
        latent = (z0 * self._std.to(z0) + self._mean.to(z0)).to(self.network.dtype)
        return self.network.decoder(self.network.post_quant_conv(latent[:, :, None]))[:, :, 0].to(z0.dtype)

    def encode(self, x: Tensor) -> Tensor:
        mean = self.network.encode(x[:, :, None].to(self.network.dtype)).latent_dist.mode()[:, :, 0].to(x.dtype)
        return (mean - self._mean.to(x)) / self._std.to(x)


_DENOISERS: dict[str, type[Denoiser]] = {
    "UNet2DModel": _PlainUNet,
    "UNet2DConditionModel": _TextUNet,
    "SD3Transformer2DModel": _SD3,
    "FluxTransformer2DModel": _Flux,
    "QwenImageTransformer2DModel": _QwenImage,
}
_AUTOENCODERS: dict[str, Any] = {"AutoencoderKL": Autoencoder, "AutoencoderKLQwenImage": _VideoAutoencoder}


def overflows(autoencoder: nn.Module, dtype: torch.dtype) -> bool:
    """Whether an autoencoder is to be run in float32 where ``dtype`` is asked for."""
    return bool(config_of(autoencoder).get("force_upcast")) and dtype == torch.float16


def adapted(denoiser: nn.Module, autoencoder: nn.Module) -> tuple[Denoiser, Autoencoder]:
    """Both networks with their calls.

    Raises:
        InputError: a network is not supported, they do not belong together, or the latent channels differ.
    """
    family = _DENOISERS.get(type(denoiser).__name__)
    if family is None or type(autoencoder).__name__ != family.autoencoder:
        choices = ", ".join(f"{name} with {kind.autoencoder}" for name, kind in _DENOISERS.items())
        raise InputError(
            f"model is {type(denoiser).__name__} with {type(autoencoder).__name__}; supported are {choices}"
        )
    decoder: Autoencoder = _AUTOENCODERS[family.autoencoder](autoencoder)
    call = family(denoiser, decoder.picture_factor)
    if call.channels != decoder.channels:
        raise InputError(
            f"the denoiser has {call.channels} channels and the autoencoder {decoder.channels}; "
            "use a plain text-to-image model, not one made for inpainting or editing"
        )
    return call, decoder
