"""Nodes for noise level and likelihood of an observation."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ...vipaint_ops.errors import InputError
from ...vipaint_ops.measurement.likelihood import StudentT
from ...vipaint_ops.measurement.noise_level import model_level, noise_level
from ...vipaint_ops.measurement.observation import Observation
from ..batches import each_image, each_mask, numbered, per_image
from ..gather import list_output
from ..host.vae import not_finite
from ..pictures import images, observed, pictures
from ..search import schema
from ..shown import noticed, with_text
from ..sockets import ObservationSocket, output

LEAST, MOST = 0.001, 1.0
"""Range of the noise_level inputs."""


class EstimateNoiseLevel(io.ComfyNode):
    """Noise level of an image, with or without the VAE's reconstruction error."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintEstimateNoiseLevel",
            display_name="Estimate Noise Level (VIPaint)",
            category="VIPaint/observe",
            description="Estimates the noise level of an image, for the noise_level input of Observe nodes.",
            inputs=[
                io.Image.Input("image", tooltip="The image to restore, or several, before resizing or denoising."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 = masked area. Pixels in or next to it are excluded. One for all images, or one each.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Include this VAE's reconstruction error, which noise_level must cover.",
                ),
            ],
            outputs=[
                list_output(io.Float, "noise_level", "For the noise_level input of an Observe node."),
                list_output(io.String, "text", "The estimate as text."),
            ],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, image, mask=None, vae=(None,)) -> io.NodeOutput:
        lists = {"image": each_image(image), "mask": [None] if mask is None else each_mask(mask)}
        with noticed() as notices:
            levels, texts = zip(*per_image(_estimated, lists, {"vae": vae}), strict=True)
        return with_text("\n".join([*notices, numbered(texts)]), list(levels), list(texts))


def _estimated(image: Tensor, mask: Tensor | None, vae: Any) -> tuple[float, str]:
    """The noise level of an image, and the text about it."""
    picture = pictures(image)
    known = None if mask is None else observed(mask, *picture.shape[2:])
    level = noise_level(picture, known)
    lines = [f"noise {level:.4f}"]
    if vae is not None:
        multiple = int(vae.spacial_compression_decode())
        level = model_level(picture, partial(_autoencoded, vae=vae), multiple, known)
        lines.append(f"with the VAE's reconstruction error {level:.4f}")
    used = min(max(level, LEAST), MOST)
    lines.append(f"noise_level {used:.3f}, for pixel values in [-1, 1]")
    return used, "\n".join(lines)


def _autoencoded(picture: Tensor, vae: Any) -> Tensor:
    """The picture, encoded and decoded by the VAE."""
    decoded = vae.decode(vae.encode(images(picture)))
    if not decoded.isfinite().all():
        raise InputError(not_finite(vae))
    return pictures(decoded.reshape(-1, *decoded.shape[-3:])[:1], "vae").to(picture.device)


class RobustLikelihood(io.ComfyNode):
    """An observation with outliers."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintRobustLikelihood",
            display_name="Robust Likelihood (VIPaint)",
            category="VIPaint/observe",
            description="Uses a Student's t likelihood, for a few outlier pixels: dust, scratches without a mask, salt "
            "and pepper noise.",
            inputs=[
                ObservationSocket.Input(
                    "observation", tooltip="From an Observe node. Its noise level is that of the inliers."
                ),
                io.Float.Input(
                    "degrees",
                    default=2.0,
                    min=0.5,
                    max=100.0,
                    step=0.5,
                    round=0.01,
                    tooltip="Degrees of freedom of Student's t. Lower values allow more outliers; 100 is nearly "
                    "Gaussian.",
                ),
            ],
            outputs=[output(ObservationSocket, "robust_observation", "For Fit Posterior and Sample Posterior.")],
        )

    @classmethod
    def execute(cls, observation, degrees) -> io.NodeOutput:
        with torch.inference_mode(False):
            robust = Observation(observation.y, observation.operator, observation.noise_std, StudentT(degrees))
        return io.NodeOutput(robust)
