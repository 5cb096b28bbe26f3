"""The nodes that crop windows around holes, and stitch them back when they are restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.images import windows
from .gather import list_output
from .pictures import images as to_images
from .pictures import observed, pictures
from .search import schema
from .shown import noticed, with_text
from .sockets import output

StitchSocket = io.Custom("VIPAINT_STITCH")


@dataclass(frozen=True)
class Cut:
    """What Stitch needs of the original.

    Attributes:
        image: RGB IMAGE.
        known: the library's mask of it.
        windows: in the order of the cropped images.
    """

    image: Tensor
    known: Tensor
    windows: Sequence[windows.Window]


class CropForInpaint(io.ComfyNode):
    """Windows around the masked areas of a large image."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintCropForInpaint",
            display_name="Crop for Inpainting (VIPaint)",
            category="VIPaint",
            description="Crops a window around each masked area and resizes it to the size of the model. Nodes that "
            "follow run once for each window. Use Stitch Inpainted to put the result back.",
            inputs=[
                io.Image.Input("image", tooltip="The image, of any size. Pixels under the mask are not used."),
                io.Mask.Input("mask", tooltip="Mask of the area to fill (1 = fill)."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="Side of the images that the model was trained for: 512 for SD 1.5, 1024 for SDXL and "
                    "newer, 64 for the embedded prior.",
                ),
                io.Float.Input(
                    "context",
                    default=0.5,
                    min=0.1,
                    max=8.0,
                    step=0.05,
                    round=0.01,
                    tooltip="Pixels around a masked area on each side, as a share of its longer side. More context "
                    "fits better, with less detail where the window must be reduced.",
                ),
                io.Float.Input(
                    "enlarge",
                    default=2.0,
                    min=1.0,
                    max=16.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Largest enlargement of a window. Small masked areas get more context instead. 1 = never "
                    "enlarge.",
                ),
                io.Boolean.Input(
                    "keep_small",
                    default=False,
                    optional=True,
                    tooltip="Leave an image as it is, if it has no more pixels than size x size.",
                ),
            ],
            outputs=[
                list_output(io.Image, "cropped_image", "The windows. Masked pixels are grey."),
                list_output(io.Mask, "cropped_mask", "The masks of the windows."),
                output(StitchSocket, "stitch", "For Stitch Inpainted."),
            ],
        )

    @classmethod
    def execute(cls, image, mask, size, context, enlarge, keep_small=False) -> io.NodeOutput:
        original = pictures(image)
        with noticed() as notices:
            known = observed(mask, *original.shape[2:])
        with torch.inference_mode(False):
            if keep_small and known.numel() <= size**2:
                found = [windows.whole_window(known)]
            else:
                found = windows.find_windows(known, windows.WindowConfig(size=size, context=context, enlarge=enlarge))
            parts = [windows.crop(original, known, window) for window in found]
        if not keep_small or known.numel() > size**2:
            sides = ", ".join(f"{part.shape[3]}x{part.shape[2]}" for part, _ in parts)
            notices.append(f"Windows: {len(parts)} ({sides}), each with its own run of the model")
        cut = Cut(image[..., :3].expand(*image.shape[:3], 3), known, found)
        cropped, hidden = [to_images(part) for part, _ in parts], [1 - shrunk[:, 0] for _, shrunk in parts]
        return with_text("\n".join(notices), cropped, hidden, cut)


class Stitch(io.ComfyNode):
    """The original with its masked areas from restored windows."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintStitch",
            display_name="Stitch Inpainted (VIPaint)",
            category="VIPaint",
            description="Puts inpainted windows back into the original image. Known pixels are those of the original, "
            "bit for bit, except within the feather.",
            inputs=[
                StitchSocket.Input("stitch", tooltip="The output stitch of Crop for Inpainting."),
                io.Image.Input(
                    "images",
                    tooltip="The inpainted windows: the same number of samples of each. They may be upscaled.",
                ),
                io.Int.Input(
                    "feather",
                    default=0,
                    min=0,
                    max=256,
                    tooltip="Width in pixels of a band of known pixels around the masked area, in which the window "
                    "fades into the original. 0 = known pixels do not change.",
                ),
            ],
            outputs=[
                list_output(io.Image, "stitched", "The original image with the masked areas filled, one per sample.")
            ],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, stitch, images, feather) -> io.NodeOutput:
        with torch.inference_mode(False):
            restored = [(pictures(part, "images") + 1) / 2 for part in images]
            ends = list(accumulate(len(cut.windows) for cut in stitch))
            if len(restored) != ends[-1]:
                raise InputError(
                    f"images are a list of {len(restored)} and Crop for Inpainting made {ends[-1]} windows: connect "
                    "the whole list, without a node that joins or selects"
                )
            stitched = [
                windows.stitch(
                    cut.image.clone().movedim(-1, 1),
                    cut.known,
                    cut.windows,
                    restored[end - len(cut.windows) : end],
                    feather[0],
                )
                for cut, end in zip(stitch, ends, strict=True)
            ]
        return io.NodeOutput([picture.movedim(1, -1).contiguous() for picture in stitched])
