"""Batches and lists of images in nodes that take one image at a time: a result for each, as a list.

Such nodes have ``is_input_list``: the host gives every input as a list, of one item where it is no list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from ..vipaint_ops.errors import InputError

Result = TypeVar("Result")


def each_image(batches: Sequence[Tensor]) -> list[Tensor]:
    """The images of a list of IMAGE, ``[1, height, width, channels]`` each."""
    return [image[None] for batch in batches for image in batch]


def each_mask(batches: Sequence[Tensor]) -> list[Tensor]:
    """The masks of a list of MASK, ``[1, height, width]`` each."""
    return [mask for batch in batches for mask in batch.reshape(-1, 1, *batch.shape[-2:])]


def per_image(
    work: Callable[..., Result], images: Mapping[str, Sequence[Any]], settings: Mapping[str, Sequence[Any]]
) -> list[Result]:
    """What ``work`` returns for each image. Its arguments are an item of every list.

    Args:
        images: lists by name, first that of the images. Others have one item for all images, or one for each.
        settings: the same. With a single image they may be longer: a result for each item, the last one repeated.

    Raises:
        InputError: no image, lists that do not fit, or an error of ``work``, with the number of its image.
    """
    first, given = next(iter(images)), {**images, **settings}
    count = len(images[first])
    for name, items in given.items():
        if not items:
            raise InputError(f"{name} is an empty batch: check the node that made it")
        if len(items) not in (1, count) and (name in images or count > 1):
            raise InputError(f"{name} has {len(items)} items and {first} {count}: connect one for all, or one for each")
    rows = max(map(len, given.values()))
    results = []
    for row in range(rows):
        try:
            results.append(work(**{name: items[min(row, len(items) - 1)] for name, items in given.items()}))
        except InputError as error:
            if rows == 1:
                raise
            raise InputError(f"image {row + 1} of {rows}: {error}") from error
    return results


def numbered(texts: Sequence[str]) -> str:
    """The texts of several images as one, with their numbers; that of a single image as it is."""
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"Image {number} of {len(texts)}\n{text}" for number, text in enumerate(texts, 1))
