"""Conditions that lie on a picture, moved to a part of it.

ControlNet hints, channels of inpainting models, areas and masks have the frame of the picture. Where the picture is
padded or cropped, ComfyUI would stretch them over the new frame.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...vipaint_ops.errors import InputError

Spans = Sequence[tuple[int, int]]
"""For rows and columns: where planes begin on the picture, and the pixels of the picture that they cover."""

_PLANES = ("concat_mask", "concat_image")
_LATENTS = ("concat_latent_image", "vace_frames", "vace_mask")
_WHOLE = 8
"""InpaintModelConditioning cuts pictures to a multiple of this, around their centre."""
_SURROUNDINGS = 4
"""Latent cells around a part that are decoded with it."""


@dataclass(frozen=True)
class Part:
    """A part of a picture. It may reach beyond the right and the bottom side, where planes go on as at their edge.

    Attributes:
        picture: height and width.
        size: height and width of the part.
        start: its top and left.
        cell: pixels to a latent cell, the unit of areas.
    """

    picture: tuple[int, int]
    size: tuple[int, int]
    start: tuple[int, int] = (0, 0)
    cell: int = 8

    @property
    def whole(self) -> bool:
        """Whether this is the picture itself."""
        return self.start == (0, 0) and self.size == self.picture

    def of(self, planes: Tensor, spans: Spans | None = None) -> Tensor:
        """This part of ``[..., h, w]`` in the resolution of the planes, by the nearest pixel."""
        for axis, start, size, (first, covered) in zip(
            (-2, -1), self.start, self.size, spans or self._all, strict=True
        ):
            there = planes.shape[axis]
            here = max(1, round(there * size / covered))
            places = start - first + (torch.arange(here, dtype=torch.float64) + 0.5) * size / here
            index = (places * there / covered).floor().long().clamp(0, there - 1)
            planes = planes.index_select(axis, index.to(planes.device))
        return planes

    def of_centred(self, planes: Tensor) -> Tensor:
        """The same of planes that ComfyUI cuts to the aspect of the picture."""
        rows, columns = planes.shape[-2:]
        aspect = rows * self.picture[1] / (columns * self.picture[0])
        top, left = (round(side * (1 - min(1, share)) / 2) for side, share in ((rows, 1 / aspect), (columns, aspect)))
        return self.of(planes[..., top : rows - top, left : columns - left])

    def of_inpainting(self, planes: Tensor) -> Tensor:
        """The same of planes that InpaintModelConditioning made, or another node."""
        spans = self.inpainting
        covered = [length for _, length in spans]
        if list(planes.shape[-2:]) in (covered, [length // self.cell for length in covered]):
            return self.of(planes, spans)
        return self.of_centred(planes)

    @property
    def inpainting(self) -> Spans:
        """What InpaintModelConditioning takes of the picture."""
        return [(side % _WHOLE // 2, side // _WHOLE * _WHOLE) for side in self.picture]

    @property
    def _all(self) -> Spans:
        return [(0, side) for side in self.picture]


class MovedConditions:
    """Moves conditions to a part of their picture. One instance for all conditions of a guider: they share ControlNets.

    Args:
        part: of the picture.
        seen: height and width in which the model sees the part, if it is resized.
        vae: encodes pictures in latent space again, if the part is resized.
    """

    def __init__(self, part: Part, seen: tuple[int, int] | None = None, vae: Any = None):
        self._part, self._seen, self._vae = part, seen or part.size, vae
        self._controls: dict[int, Any] = {}

    def entries(self, entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The entries of a guider's conditions. Those whose area lies outside are left out, unless all do.

        Raises:
            InputError: a picture in latent space would be resized, and there is no VAE.
        """
        if self._part.whole:
            return list(entries)
        moved = [self._entry(entry) for entry in entries]
        inside = [entry for entry in moved if entry.get("area", ()) is not None]
        return inside or [{key: value for key, value in entry.items() if key != "area"} for entry in moved]

    def conditioning(self, conditioning: Sequence[Any]) -> list[Any]:
        """The same of a CONDITIONING."""
        text = "text embedding"
        moved = self.entries([{text: embedding, **entry} for embedding, entry in conditioning])
        return [[entry.pop(text), entry] for entry in map(dict, moved)]

    def _entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        moved = dict(entry)
        for key, value in entry.items():
            if key == "control":
                moved[key] = self._control(value)
            elif key == "area":
                moved[key] = self._area(value)
            elif key == "mask":
                moved[key] = self._part.of(value)
            elif key in _PLANES:
                moved[key] = self._part.of_inpainting(value)
            elif key in _LATENTS:
                latents = isinstance(value, Tensor)
                moved[key] = self._latents(key, value) if latents else [self._latents(key, one) for one in value]
            elif key == "gligen":
                moved[key] = (*value[:2], [box for box in map(self._box, value[2]) if box])
        return moved

    def _control(self, control: Any) -> Any:
        """A copy of a ControlNet with its hint moved, and of those that it is chained to."""
        if control is None or id(control) in self._controls:
            return self._controls.get(id(control))
        moved = self._controls[id(control)] = control.copy()
        if control.cond_hint_original is not None:  # some of custom packs have none
            moved.cond_hint_original = self._part.of_centred(control.cond_hint_original)
        moved.extra_concat_orig = [self._part.of_centred(plane) for plane in control.extra_concat_orig]
        moved.set_previous_controlnet(self._control(control.previous_controlnet))
        return moved

    def _area(self, area: Sequence[Any]) -> tuple[Any, ...] | None:
        """An area as shares of the part; None if it lies outside."""
        shares = area[0] == "percentage"
        values = list(area[1:] if shares else area)
        count = len(values) // 2
        for axis, (whole, start, size) in enumerate(
            zip(self._part.picture, self._part.start, self._part.size, strict=True), count - 2
        ):
            unit = whole if shares else self._part.cell
            first, last = values[count + axis] * unit, (values[count + axis] + values[axis]) * unit
            if last > whole - (1 if shares else self._part.cell):
                last = max(last, start + size)  # it reaches the edge, and so over the padding
            first, last = (min(max(place - start, 0), size) for place in (first, last))
            if first == last:
                return None
            values[axis], values[count + axis] = (last - first) / size, first / size
        return ("percentage", *values)

    def _box(self, box: Sequence[Any]) -> tuple[Any, ...] | None:
        """A box of GLIGEN, in latent cells."""
        embedding, *sides = box
        found = []
        for length, first, start, size, seen in zip(
            sides[:2], sides[2:], self._part.start, self._part.size, self._seen, strict=True
        ):
            cell, scale = self._part.cell, seen / size
            edges = [min(max(place * cell - start, 0), size) * scale / cell for place in (first, first + length)]
            found.append((edges[1] - edges[0], edges[0]))
        (height, top), (width, left) = found
        return (embedding, height, width, top, left) if height > 0 and width > 0 else None

    def _latents(self, key: str, latents: Tensor) -> Tensor:
        """Latents in the same resolution, or of their decoded part in another one."""
        part = self._part
        if self._seen == part.size and all(start % part.cell == 0 for start in part.start):
            return part.of_inpainting(latents)
        if self._vae is None or latents.ndim != 4:
            raise InputError(
                f"positive or negative has a picture in latent space ({key}), which cannot be cropped: connect vae, or "
                "make this conditioning from the cropped image"
            )
        firsts = []
        for axis, start, size, (first, _) in zip((-2, -1), part.start, part.size, part.inpainting, strict=True):
            low = max((start - first) // part.cell - _SURROUNDINGS, 0)
            high = math.ceil((start + size - first) / part.cell) + _SURROUNDINGS
            latents = latents.narrow(axis, low, min(high, latents.shape[axis]) - low)
            firsts.append(first + low * part.cell)
        pixels = self._vae.decode(latents).movedim(-1, 1)
        spans = list(zip(firsts, pixels.shape[-2:], strict=True))
        resized = F.interpolate(part.of(pixels, spans), self._seen, mode="bilinear", antialias=True)
        return self._vae.encode(resized.movedim(1, -1))


def place_conditions(guider: Any, part: Part) -> None:
    """Move the conditions and control patches of a guider, whose model options are its own, to ``part``."""
    moved = MovedConditions(part)
    guider.original_conds = {name: moved.entries(conds) for name, conds in guider.original_conds.items()}
    options = guider.model_options["transformer_options"]
    if patches := options.get("patches"):
        guider.model_options["transformer_options"] = options | {"patches": _moved_patches(patches, part)}


def control_patches(patches: dict[str, list[Any]]) -> list[Any]:
    """Patches of a model that lie on the picture: they encode one of their own."""
    return [patch for several in patches.values() for patch in several if hasattr(patch, "encoded_image_size")]


def _moved_patches(patches: dict[str, list[Any]], part: Part) -> dict[str, list[Any]]:
    """Those of Qwen-Image and Z-Image have a picture, and encode it again for another size."""
    moved: dict[int, Any] = {}
    for patch in control_patches(patches):
        there = moved[id(patch)] = copy.copy(patch)
        there.encoded_image_size = None
        for name in ("image", "inpaint_image"):
            if getattr(patch, name, None) is not None:
                setattr(there, name, part.of_centred(getattr(patch, name).movedim(-1, 1)).movedim(1, -1))
        if patch.mask is not None:
            there.mask = part.of_centred(patch.mask)
    return {name: [moved.get(id(patch), patch) for patch in several] for name, several in patches.items()}
