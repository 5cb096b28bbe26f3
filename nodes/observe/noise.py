"""Nodes about the noise of an observation: how much there is, and of which kind."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ...vipaint_ops.errors import InputError
from ...vipaint_ops.measurement.likelihood import StudentT
from ...vipaint_ops.measurement.noise_level import covering_level, noise_level
from ...vipaint_ops.measurement.observation import Observation
from ..pictures import images, observed, pictures, single_picture
from ..sockets import ObservationSocket, output

LEAST, MOST = 0.001, 1.0
"""The range of every node's noise_level."""


class EstimateNoiseLevel(io.ComfyNode):
    """The noise of a picture, and what a VAE cannot reproduce of it."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VIPaintEstimateNoiseLevel",
            display_name="Estimate Noise Level",
            category="VIPaint/observe",
            description="Estimates how noisy a picture is, for the noise_level of the Observe nodes.",
            inputs=[
                io.Image.Input("image", tooltip="The picture to restore, as it is: before any resizing or denoising."),
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip="1 (white) is the hole: what lies there, or touches it, does not count.",
                ),
                io.Vae.Input(
                    "vae", optional=True,
                    tooltip="Adds what this VAE cannot reproduce of the picture, which noise_level must cover too.",
                ),
            ],
            outputs=[
                output(io.Float, "noise_level", "For the noise_level of an Observe node: connect it to the widget."),
                output(io.String, "text", "What was found, in words."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, image, mask=None, vae=None) -> io.NodeOutput:
        picture = single_picture(image)
        known = None if mask is None else observed(mask, *picture.shape[2:])
        noise = noise_level(picture, known)
        lines = [f"noise {noise:.4f}"]
        level = noise
        if vae is not None:
            level = covering_level(*_reproduced(picture, known, vae))
            lines.append(f"with what the VAE cannot reproduce {level:.4f}")
        used = min(max(level, LEAST), MOST)
        lines.append(f"noise_level {used:.3f}, on a scale where black is -1 and white 1")
        return io.NodeOutput(used, "\n".join(lines))


def _reproduced(picture: Tensor, known: Tensor | None, vae) -> tuple[Tensor, Tensor, Tensor | None]:
    """The picture and its mask, cropped to sides that the VAE takes, and between them what it makes of the picture.

    The hole is filled with the mean of what is known, so that nothing under the mask is looked at.
    """
    multiple = int(vae.spacial_compression_decode())
    height, width = (side - side % multiple for side in picture.shape[2:])
    if not height or not width:
        raise InputError(
            f"image is {picture.shape[2]}x{picture.shape[3]} (height x width), less than a cell of the VAE ({multiple})"
        )
    picture = picture[..., :height, :width]
    filled = picture
    if known is not None:
        known = (known[..., :height, :width] == 1).to(picture.dtype)
        mean = (known * picture).sum((2, 3), keepdim=True) / known.sum().clamp(min=1)
        filled = torch.where(known > 0, picture, mean)
    decoded = vae.decode(vae.encode(images(filled)))
    return picture, pictures(decoded.reshape(-1, *decoded.shape[-3:])[:1], "vae").to(picture.device), known


class RobustLikelihood(io.ComfyNode):
    """An observation some of whose pixels are wrong."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VIPaintRobustLikelihood",
            display_name="Robust Likelihood",
            category="VIPaint/observe",
            description="Lets a few pixels of an observation be wrong by any amount: dust, scratches that no mask "
            "marks, salt and pepper.",
            inputs=[
                ObservationSocket.Input(
                    "observation", tooltip="From an Observe node. Its noise level is that of the pixels that are right."
                ),
                io.Float.Input(
                    "degrees", default=2.0, min=0.5, max=100.0, step=0.5, round=0.01,
                    tooltip="Degrees of freedom of Student's t. Fewer expect more wrong pixels; 100 is nearly "
                    "Gaussian.",
                ),
            ],
            outputs=[
                output(ObservationSocket, "robust_observation", "For Fit Posterior and Sample Posterior, both of them.")
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, observation, degrees) -> io.NodeOutput:
        with torch.inference_mode(False):
            robust = Observation(observation.y, observation.operator, observation.noise_std, StudentT(degrees))
        return io.NodeOutput(robust)
