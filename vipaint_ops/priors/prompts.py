"""Encoded prompts: the conditioning of a denoiser, by the text encoders of its pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import InputError
from .networks import Conditioning, Denoiser

FLUX_GUIDANCE = 3.5
"""The guidance that a distilled Flux takes as an input: the default of the pipeline of diffusers."""
_TOKENS = 512
"""Longest prompt of Flux and Qwen-Image: the default of their pipelines."""


@dataclass(frozen=True)
class Conditions:
    """The conditioning of a denoiser, with classifier-free guidance.

    Attributes:
        positive: conditioning of the guided prediction.
        negative: conditioning of the unguided prediction; required if ``cfg`` is not 1.
        cfg: scale of the guidance (Ho & Salimans, eq. 6): unguided + cfg * (guided - unguided). Values other than 1
            double the cost of a call, and the prediction is then not the mean of z_0 under the model.
        label: description of the conditioning in the identity of the prior.

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


class Prompts(NamedTuple):
    """Texts of the conditioning, with the scale of the guidance."""

    positive: str
    negative: str
    cfg: float


def encoded_conditions(
    pipeline: Any, denoiser: Denoiser, lacking: list[str], prompts: Prompts, device: torch.device
) -> Conditions | None:
    """The prompts, encoded by the pipeline; None for a model that takes no text.

    The text encoders are on ``device`` only during the call, to save memory.

    Raises:
        InputError: prompts for a model without text, no text encoder, or one of another model.
    """
    if not denoiser.takes_text:
        if prompts.positive or prompts.negative or prompts.cfg != 1:
            raise InputError("this model takes no text: leave out the prompts and cfg")
        return None
    text = {name: part for name, part in pipeline.components.items() if name.startswith(("tokenizer", "text_encoder"))}
    # Only Stable Diffusion 3 has a third encoder, and works without.
    if absent := sorted({*lacking, *(k for k, part in text.items() if part is None and not k.endswith("_3"))}):
        raise InputError(
            f"the model has no {', '.join(absent)}, which it needs even without a prompt: add what is missing from the "
            "model's download"
        )
    positive, negative, cfg = prompts
    rows = _encode(pipeline, denoiser, [positive] if cfg == 1 else [positive, negative], device)
    for row in rows:
        check_finite("the encoded prompt", row)
        _check_widths(row, denoiser)
    label = f"prompt {positive!r} not {negative!r} cfg {cfg:g}"
    return Conditions(rows[0], rows[1] if cfg != 1 else None, cfg, label)


def check_finite(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Raises InputError if a tensor has NaN or infinite values."""
    broken = [key for key, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise InputError(f"{name} has NaN or infinite values, first in {broken[0]}: download the model again")


def _check_widths(row: Conditioning, denoiser: Denoiser) -> None:
    config, name = denoiser.config, type(denoiser.network).__name__
    taken = {
        "encoder_hidden_states": config.get("encoder_hid_dim")
        or config.get("joint_attention_dim")
        or config.get("cross_attention_dim"),
        "pooled_projections": config.get("pooled_projection_dim"),
    }
    for key, value in row.items():
        if key in taken and value.shape[-1] != taken[key]:
            raise InputError(
                f"the text encoder gives {value.shape[-1]} numbers a token and {name} takes {taken[key]}: "
                "they are of different models"
            )


@torch.no_grad()
def _encode(pipeline: Any, denoiser: Denoiser, prompts: list[str], device: torch.device) -> list[Conditioning]:
    parts = pipeline.components.items()
    encoders = [part for name, part in parts if name.startswith("text_encoder") and part is not None]
    homes = [encoder.device for encoder in encoders]
    for encoder in encoders:
        encoder.to(device)
    try:
        return _ENCODERS[type(denoiser.network).__name__](pipeline, prompts, device)
    finally:
        for encoder, home in zip(encoders, homes, strict=True):
            encoder.to(home)


def _unet(pipeline: Any, prompts: list[str], device: torch.device) -> list[Conditioning]:
    return _together(pipeline, prompts, "text_embeds", device=device, num_images_per_prompt=1)


def _sd3(pipeline: Any, prompts: list[str], device: torch.device) -> list[Conditioning]:
    return _together(pipeline, prompts, "pooled_projections", device=device, prompt_2=None, prompt_3=None)


def _together(pipeline: Any, prompts: list[str], pooled: str, **arguments: Any) -> list[Conditioning]:
    """The rows of a pipeline that encodes both prompts in one call: embeddings of each, then pooled ones of each."""
    prompt, *negative = prompts
    # Without a negative prompt, SDXL was trained with zeros, not with the encoding of "".
    encoded = pipeline.encode_prompt(
        prompt,
        negative_prompt=(negative[0] or None) if negative else None,
        do_classifier_free_guidance=bool(negative),
        **arguments,
    )
    return [dict(zip(("encoder_hidden_states", pooled), encoded[row::2], strict=False)) for row in range(len(prompts))]


def _flux(pipeline: Any, prompts: list[str], device: torch.device) -> list[Conditioning]:
    distilled = pipeline.transformer.config.guidance_embeds
    guidance = {"guidance": torch.full((1,), FLUX_GUIDANCE, device=device)} if distilled else {}
    rows = [pipeline.encode_prompt(text, None, device=device, max_sequence_length=_TOKENS) for text in prompts]
    return [{"encoder_hidden_states": row[0], "pooled_projections": row[1], **guidance} for row in rows]


def _qwen_image(pipeline: Any, prompts: list[str], device: torch.device) -> list[Conditioning]:
    rows = [pipeline.encode_prompt(text, device=device, max_sequence_length=_TOKENS)[0] for text in prompts]
    longest = max(row.shape[1] for row in rows)
    if all(row.shape[1] == longest for row in rows):
        return [{"encoder_hidden_states": row} for row in rows]
    known = [torch.ones(row.shape[:2], dtype=torch.bool, device=device) for row in rows]
    return [
        {
            "encoder_hidden_states": pad(row, (0, 0, 0, longest - row.shape[1])),
            "encoder_hidden_states_mask": pad(mask, (0, longest - row.shape[1])),
        }
        for row, mask in zip(rows, known, strict=True)
    ]


_ENCODERS: dict[str, Callable[[Any, list[str], torch.device], list[Conditioning]]] = {
    "UNet2DConditionModel": _unet,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
    "QwenImageTransformer2DModel": _qwen_image,
}
"""Rows of one or two prompts."""
