"""The node that composites known pixels over samples."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.images import masks
from .batches import each_image, each_mask, per_image
from .gather import list_output
from .pictures import images as to_images
from .pictures import observed, pictures, without_border
from .search import schema
from .shown import noticed, with_text
from .sockets import ObservationSocket, output

FEATHER_TOOLTIP = (
    "Distance in pixels, inside the masked area, over which a colour difference at its edge fades out. 0 = off."
)
MATCH_TOOLTIP = (
    "Match mean and contrast of each sample's known pixels to the original before compositing. Off: the mean colour "
    "alone, by eight levels of 255 at most, for the VAE shifts it."
)
BLEND_TOOLTIP = (
    "Mix original and sample where the mask is grey: what the original has there shows through. Off: masked "
    "pixels, grey ones too, come from the sample."
)


class CompositeObserved(io.ComfyNode):
    """Replaces the known pixels of samples by those of the original."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintCompositeObserved",
            display_name="Composite Observed",
            category="VIPaint",
            description="Replaces the known pixels of every sample by the original pixels, bit for bit.",
            inputs=[
                io.Image.Input("images", tooltip="Samples of an image, any number, or a list of samples of several."),
                io.Image.Input("original", tooltip="The original of the same size, one for all samples or one each."),
                io.Mask.Input(
                    "mask", tooltip="The mask of Observe: Inpaint (1 = masked area), one for all originals or one each."
                ),
                io.Int.Input("feather", default=0, min=0, max=256, tooltip=FEATHER_TOOLTIP),
                io.Boolean.Input("colour_match", default=False, tooltip=MATCH_TOOLTIP),
                io.Boolean.Input("blend_greys", default=False, optional=True, tooltip=BLEND_TOOLTIP),
            ],
            outputs=[list_output(io.Image, "composited", "The samples with the original known pixels.")],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, images, original, mask, feather, colour_match, blend_greys=(False,)) -> io.NodeOutput:
        lists = {"images": images, "original": each_image(original), "mask": each_mask(mask)}
        settings = {"feather": feather, "colour_match": colour_match, "blend_greys": blend_greys}
        with noticed() as notices:
            composited = per_image(_composited, lists, settings)
        return with_text("\n".join(notices), composited)


def _composited(
    images: Tensor, original: Tensor, mask: Tensor, feather: int, colour_match: bool, blend_greys: bool
) -> Tensor:
    picture = pictures(original, "original")
    samples = without_border(pictures(images, "images"), *picture.shape[2:])
    if samples.shape[2:] != picture.shape[2:]:
        found, wanted = ("x".join(map(str, p.shape[2:])) for p in (samples, picture))
        raise InputError(f"images are {found} and original {wanted} (height x width): composite before resizing")
    known = observed(mask, *picture.shape[2:])
    correct = masks.match_colours if colour_match else masks.without_shift
    samples = correct(samples, picture, known)
    pasted = observed(mask, *picture.shape[2:], greys=True) if blend_greys else known
    composited = to_images(masks.composite(samples, picture, pasted, feather))
    # From [0, 1] to [-1, 1] and back rounds, so the known pixels come from the original itself.
    kept = (known == 1).movedim(1, -1)
    return torch.where(kept, original[..., :3].to(composited), composited)


class CropToObservation(io.ComfyNode):
    """Decoded samples at the size of the observed image."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintCropToObservation",
            display_name="Crop to Observation",
            category="VIPaint",
            description="Crops decoded samples of a sampler to the image of the observation. Images whose sides the "
            "model does not take are padded at the right and the bottom.",
            inputs=[
                io.Image.Input("images", tooltip="Samples of VAE Decode, any number."),
                ObservationSocket.Input("observation", tooltip="The observation of the sampler."),
            ],
            outputs=[output(io.Image, "cropped", "The samples at the size of the image.")],
        )

    @classmethod
    def execute(cls, images, observation) -> io.NodeOutput:
        height, width = observation.operator.picture_size(tuple(observation.y.shape[2:]))
        samples = without_border(images.movedim(-1, 1), height, width)
        if samples.shape[2:] != (height, width):
            raise InputError(
                f"images are {images.shape[1]}x{images.shape[2]} and the observed image {height}x{width} (height x "
                "width): connect the samples before resizing"
            )
        return io.NodeOutput(samples.movedim(1, -1).contiguous())
