"""The nodes that crop windows around holes, and stitch them back when they are restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.images import windows
from .batches import each_image, each_mask, per_image
from .gather import list_output
from .host.conditions import MovedConditions, Part
from .host.vae import HostVAE
from .pictures import images as to_images
from .pictures import masked_picture, pictures
from .search import schema
from .shown import noticed, plan_items, with_text

StitchSocket = io.Custom("VIPAINT_STITCH")


@dataclass(frozen=True)
class Cut:
    """What Stitch needs of an original.

    Attributes:
        image: RGB IMAGE of one picture.
        known: the library's mask of it.
        windows: in the order of the cropped images.
    """

    image: Tensor
    known: Tensor
    windows: Sequence[windows.Window]


class CropForInpaint(io.ComfyNode):
    """Windows around the masked areas of a large image."""

    open_inputs = frozenset({"size"})
    """Model Size gives larger sizes than the widget, for models whose picture is not to be cropped."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintCropForInpaint",
            display_name="Crop for Inpainting (VIPaint)",
            category="VIPaint",
            description="Crops a window around each masked area and resizes it to the size of the model. Nodes that "
            "follow run once for each window. Use Stitch Inpainted to put the result back.",
            inputs=[
                io.Image.Input("image", tooltip="Images of any size. Pixels under the mask are not used."),
                io.Mask.Input("mask", tooltip="Mask of the area to fill (1 = fill), one for all images or one each."),
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
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="ControlNets, areas, masks and conditions of inpainting models are cropped with the image.",
                ),
                io.Conditioning.Input("negative", optional=True, tooltip="As positive."),
                io.Vae.Input("vae", optional=True, tooltip="Only for the conditions of an inpainting model."),
            ],
            outputs=[
                list_output(io.Image, "cropped_image", "The windows. Masked pixels are grey."),
                list_output(io.Mask, "cropped_mask", "The masks of the windows."),
                list_output(StitchSocket, "stitch", "For Stitch Inpainted."),
                list_output(io.Conditioning, "cropped_positive", "The conditions of each window."),
                list_output(io.Conditioning, "cropped_negative", "The conditions of each window."),
            ],
        )

    @classmethod
    def execute(
        cls, image, mask, size, context, enlarge, keep_small=False, positive=(), negative=(), vae=None
    ) -> io.NodeOutput:
        images = each_image([image])
        with noticed() as notices:
            masked = per_image(masked_picture, {"image": images, "mask": each_mask([mask])}, {})
        config = windows.WindowConfig(size=size, context=context, enlarge=enlarge)
        small = keep_small and image[0, ..., 0].numel() <= size**2
        cuts, parts, conditions = [], [], []
        for shown, (original, known) in zip(images, masked, strict=True):
            with torch.inference_mode(False):
                found = [windows.whole_window(known)] if small else windows.find_windows(known, config)
                parts += [windows.crop(original, known, window) for window in found]
            cuts.append(Cut(shown[..., :3].expand(*shown.shape[:3], 3), known, found))
            for moved in (_conditions_in(window, known, vae) for window in found):
                conditions.append((moved.conditioning(positive), moved.conditioning(negative)))
        plan_items(len(parts))
        text = "" if small else _windows_text([part.shape[2:] for part, _ in parts])
        return with_text(
            "\n".join(filter(None, [*notices, text])),
            [to_images(part) for part, _ in parts],
            [1 - shrunk[:, 0] for _, shrunk in parts],
            cuts,
            *map(list, zip(*conditions, strict=True)),
        )


def _conditions_in(window: windows.Window, known: Tensor, vae: Any) -> MovedConditions:
    part = Part(
        picture=(known.shape[2], known.shape[3]),
        size=(window.height, window.width),
        start=(window.top, window.left),
        cell=8 if vae is None else HostVAE(vae).factor,
    )
    return MovedConditions(part, (window.rows, window.columns), vae)


def _windows_text(sizes: Sequence[torch.Size]) -> str:
    sides = ", ".join(f"{columns}x{rows}" for rows, columns in sizes)
    return f"Windows: {len(sizes)} ({sides}), each with its own run of the model"


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
