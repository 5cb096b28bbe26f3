"""Conditions keep their place on the picture: planes, areas, boxes and ControlNets in a part of it."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.nodes.pack import load

conditions = load("nodes.host.conditions")
Part, MovedConditions = conditions.Part, conditions.MovedConditions
sides = st.integers(16, 200)


@st.composite
def parts(draw):
    """A part of a picture: inside of it, or with a padding at the right and the bottom."""
    picture = draw(st.tuples(sides, sides))
    if draw(st.booleans()):
        return Part(picture, tuple(side + draw(st.integers(0, 40)) for side in picture))
    starts = [draw(st.integers(0, side - 8)) for side in picture]
    return Part(
        picture,
        tuple(draw(st.integers(8, side - start)) for side, start in zip(picture, starts, strict=True)),
        tuple(starts),
    )


def places(count: int, start: float, length: float) -> torch.Tensor:
    """Centres of ``count`` pixels over ``length`` from ``start``."""
    return start + (torch.arange(count, dtype=torch.float64) + 0.5) * length / count


def coordinates(rows: int, columns: int, picture: tuple[int, int]) -> torch.Tensor:
    """Planes of a picture, of which each pixel says where on the picture it lies, ``[1, 2, rows, columns]``."""
    y, x = (places(count, 0, side) for count, side in zip((rows, columns), picture, strict=True))
    return torch.stack([y[:, None].expand(rows, columns), x.expand(rows, columns)])[None]


@given(parts(), sides, sides)
def test_what_lies_at_a_place_of_the_picture_lies_there_in_the_part(part, rows, columns):
    moved = part.of(coordinates(rows, columns, part.picture))[0]
    for plane, there, start, size, whole in zip(
        (moved[0, :, 0], moved[1, 0]), (rows, columns), part.start, part.size, part.picture, strict=True
    ):
        half = whole / there / 2
        wanted = places(len(plane), start, size).clamp(half, whole - half)
        assert (plane - wanted).abs().max() <= half + 1e-9


@given(sides, sides, st.integers(0, 40), st.integers(0, 40))
def test_a_padded_plane_is_the_plane_with_its_edge(rows, columns, below, right):
    plane = torch.randn(1, 3, rows, columns)
    part = Part((rows, columns), (rows + below, columns + right))
    expected = torch.nn.functional.pad(plane, (0, right, 0, below), mode="replicate")
    assert torch.equal(part.of(plane), expected)
    assert torch.equal(part.of_centred(plane), expected)


@given(sides, sides, st.integers(0, 60))
def test_a_hint_of_another_aspect_is_cut_around_its_centre_as_by_the_host(rows, columns, more):
    """A hint with a margin at both sides, as wide as makes its middle the picture."""
    hint = torch.randn(1, 3, rows, columns)
    wide = torch.nn.functional.pad(hint, (more, more))
    part = Part((rows, columns), (rows + 8, columns + 8))
    assert torch.equal(part.of_centred(wide), part.of(hint))


@given(sides, sides)
def test_planes_of_inpainting_models_lie_where_the_host_took_them_from(height, width):
    assume(height % 8 and width % 8)
    top, left = (side % 8 // 2 for side in (height, width))
    picture = coordinates(height, width, (height, width))
    taken = picture[..., top : top + height // 8 * 8, left : left + width // 8 * 8]
    padded = Part((height, width), (-(-height // 16) * 16, -(-width // 16) * 16))
    moved = padded.of_inpainting(taken)
    assert moved.shape[-2:] == padded.size
    inner = moved[0, :, top : top + taken.shape[-2], left : left + taken.shape[-1]]
    assert torch.equal(inner, taken[0])
    cells = padded.of_inpainting(taken[..., ::8, ::8])
    assert cells.shape[-2:] == tuple(side // 8 for side in padded.size)


@given(parts(), st.tuples(*[st.floats(0, 0.9)] * 2), st.tuples(*[st.floats(0.05, 1)] * 2))
def test_an_area_stays_in_its_place(part, corner, extent):
    lengths = [min(size, 1 - first) for size, first in zip(extent, corner, strict=True)]
    moved = MovedConditions(part).entries([{"area": ("percentage", *lengths, *corner)}, {}])
    inside = [entry["area"] for entry in moved if "area" in entry]
    for axis, (whole, start, size) in enumerate(zip(part.picture, part.start, part.size, strict=True)):
        first, last = corner[axis] * whole, (corner[axis] + lengths[axis]) * whole
        if not inside:
            continue
        found = inside[0][3 + axis] * size + start
        end = found + inside[0][1 + axis] * size
        assert found == pytest.approx(min(max(first, start), start + size), abs=1e-6)
        at_edge = last > whole - 1
        assert end == pytest.approx(start + size if at_edge else min(max(last, start), start + size), abs=1e-6)


def test_cells_and_shares_of_an_area_agree():
    part = Part((128, 96), (64, 64), (32, 16))
    cells, shares = (
        MovedConditions(part).entries([{"area": area}])[0]["area"]
        for area in ((6, 4, 5, 3), ("percentage", 48 / 128, 32 / 96, 40 / 128, 24 / 96))
    )
    assert cells == pytest.approx(shares)
    assert cells[1:] == pytest.approx((48 / 64, 32 / 64, 8 / 64, 8 / 64))


def test_an_area_outside_is_left_out_unless_nothing_remains():
    part = Part((128, 128), (64, 64), (64, 64))
    outside, everywhere = {"area": (4, 4, 0, 0), "name": "a"}, {"name": "b"}
    moved = MovedConditions(part)
    assert [entry["name"] for entry in moved.entries([outside, everywhere])] == ["b"]
    assert moved.entries([outside]) == [{"name": "a"}]


def test_boxes_of_gligen_keep_their_place_in_a_resized_window():
    part = Part((128, 128), (64, 64), (64, 32))
    gligen = ("position", None, [("one", 4, 2, 10, 5), ("outside", 2, 2, 0, 0)])
    moved = MovedConditions(part, (128, 128)).entries([{"gligen": gligen}])[0]["gligen"]
    assert moved == ("position", None, [("one", 8, 4, 4, 2)])


class Control:
    """What the mover uses of the host's ControlNets."""

    def __init__(self, hint, previous=None):
        self.cond_hint_original, self.extra_concat_orig, self.previous_controlnet = hint, [], previous

    def copy(self):
        found = copy.copy(self)
        found.previous_controlnet = None
        return found

    def set_previous_controlnet(self, control):
        self.previous_controlnet = control


def test_controlnets_are_copied_once_with_those_that_they_are_chained_to():
    hint = torch.randn(1, 3, 72, 72)
    first = Control(hint)
    second = Control(hint, first)
    moved = MovedConditions(Part((72, 72), (80, 80)))
    positive = moved.conditioning([[torch.zeros(1), {"control": second, "pooled_output": 1}]])
    negative = moved.conditioning([[torch.zeros(1), {"control": second}]])
    control = positive[0][1]["control"]
    assert control is negative[0][1]["control"] is not second
    assert positive[0][1]["pooled_output"] == 1
    for one in (control, control.previous_controlnet):
        assert one.cond_hint_original.shape == (1, 3, 80, 80)
    assert first.cond_hint_original is second.cond_hint_original is hint


def test_latent_pictures_are_resized_through_the_vae_only():
    entry = {"concat_latent_image": torch.zeros(1, 4, 16, 16)}
    part = Part((128, 128), (48, 48), (10, 20))
    with pytest.raises(conditions.InputError, match=r"concat_latent_image.*connect vae"):
        MovedConditions(part, (64, 64)).entries([entry])


class Patch:
    """What the mover uses of the host's control patches."""

    def __init__(self):
        self.image, self.mask, self.encoded_image_size = (
            torch.randn(1, 72, 72, 3),
            torch.ones(1, 1, 1, 72, 72),
            (72, 72),
        )


def test_control_patches_are_moved_once_for_all_their_places():
    patch, other = Patch(), object()
    given = {"noise_refiner": [patch], "double_block": [other, patch]}
    moved = conditions._moved_patches(given, Part((72, 72), (80, 80)))
    there = moved["noise_refiner"][0]
    assert there is moved["double_block"][1] is not patch
    assert moved["double_block"][0] is other
    assert there.image.shape == (1, 80, 80, 3)
    assert there.mask.shape == (1, 1, 1, 80, 80)
    assert there.encoded_image_size is None
