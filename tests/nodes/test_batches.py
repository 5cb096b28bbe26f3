"""Batches and lists side by side: which items meet, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.nodes.pack import load

batches = load("nodes.batches")
InputError = load("vipaint_ops.errors").InputError
lengths = st.lists(st.integers(1, 3), min_size=1, max_size=4)


def row(**items):
    """The items of one call."""
    return items


@given(lengths)
def test_images_and_masks_keep_their_order_however_they_are_batched(sizes):
    whole = torch.arange(24.0).repeat(sum(sizes), 1) + 24 * torch.arange(sum(sizes))[:, None]
    images = batches.each_image(whole.view(-1, 2, 4, 3).split(sizes))
    masks = batches.each_mask(whole.view(-1, 4, 6).split(sizes))
    assert torch.equal(torch.cat(images), whole.view(-1, 2, 4, 3))
    assert torch.equal(torch.cat(masks), whole.view(-1, 4, 6))
    assert {image.shape for image in images} == {(1, 2, 4, 3)}
    assert {mask.shape for mask in masks} == {(1, 4, 6)}


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (1, 1, 4, 6)])
def test_a_mask_may_lack_a_batch_or_have_a_channel(shape):
    (mask,) = batches.each_mask([torch.zeros(shape)])
    assert mask.shape == (1, 4, 6)


@given(st.integers(1, 5), st.booleans(), st.booleans())
def test_one_item_serves_all_images_and_several_serve_one_each(count, masks_differ, levels_differ):
    masks, levels = ("abcde"[: count if differ else 1] for differ in (masks_differ, levels_differ))
    rows = batches.per_image(row, {"image": range(count), "mask": masks}, {"level": levels})
    assert [found["image"] for found in rows] == [*range(count)]
    for name, items in (("mask", masks), ("level", levels)):
        assert [found[name] for found in rows] == [*items] * (count // len(items))


@given(st.integers(1, 5), st.integers(2, 5))
def test_another_number_of_masks_than_images_is_refused(count, number):
    if number == count:
        number += 1
    with pytest.raises(InputError, match=f"mask has {number} items and image {count}: connect one for all, or one for"):
        batches.per_image(row, {"image": range(count), "mask": range(number)}, {})


@given(st.integers(2, 5), st.integers(2, 5))
def test_several_settings_fit_one_image_or_as_many(count, number):
    for lists in ({"image": [0]}, {"image": range(number), "mask": [0]}):
        rows = batches.per_image(row, lists, {"level": range(number)})
        assert [found["level"] for found in rows] == [*range(number)]
    if number != count:
        with pytest.raises(InputError, match=f"level has {number} items and image {count}"):
            batches.per_image(row, {"image": range(count)}, {"level": range(number)})


@pytest.mark.parametrize("empty", ["image", "mask", "level"])
def test_an_empty_batch_is_refused(empty):
    lists = {name: [] if name == empty else [0] for name in ("image", "mask", "level")}
    level = lists.pop("level")
    with pytest.raises(InputError, match=f"{empty} is an empty batch"):
        batches.per_image(row, lists, {"level": level})


def test_an_error_has_the_number_of_its_image_if_there_are_several():
    def refuse(image):
        if image == "b":
            raise InputError("image is b")

    with pytest.raises(InputError, match=r"^image 2 of 3: image is b$"):
        batches.per_image(refuse, {"image": "abc"}, {})
    with pytest.raises(InputError, match=r"^image is b$"):
        batches.per_image(refuse, {"image": "b"}, {})


def test_texts_of_several_images_are_numbered():
    assert batches.numbered(["one"]) == "one"
    assert batches.numbered(["one", "two"]) == "Image 1 of 2\none\n\nImage 2 of 2\ntwo"
