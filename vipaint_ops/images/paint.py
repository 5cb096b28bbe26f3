"""Paint of a mask editor in the picture itself.

Some versions of ComfyUI's frontend write the painted mask into the colours of the picture, opaque or half transparent.
Restorations do not use what lies under a mask, but paint that reaches beyond it is taken for known pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GAP = 3
"""Pixels left out at both sides of the edge of the mask, where a brush is soft."""
_LEAST_PAIRS = 24
_FLAT, _VARIED = 2 / 255, 12 / 255
"""Standard deviations in [-1, 1] of opaque paint, and of a picture that is told from it."""
_GREY = 2 / 255
"""Colours in [-1, 1] up to this are the grey of padded and of cropped pictures, which is no paint."""
_ALIKE = 0.9
"""Least correlation across the edge of half transparent paint, as a share of that in the picture itself."""
_CORRELATED = 0.6
_MOST_CONTRAST = 0.75
"""Contrast under paint, as a share of that beside it."""


def painted(picture: Tensor, mask: Tensor) -> bool:
    """Whether a picture looks painted over where it is hidden, as far as that can be told.

    Colours on both sides of the mask's edge are compared. Opaque paint has one colour inside, whatever there is
    outside. Under half transparent paint, colours are those outside, mixed with one colour.

    Args:
        picture: ``[1, channels, height, width]`` in [-1, 1], with what lies under the mask.
        mask: of :func:`~.masks.fit_mask`, ``[1, 1, height, width]``.
    """
    hidden = mask[0, 0] == 0
    inside, outside = _pairs(picture, hidden, 0)
    if len(inside) < _LEAST_PAIRS or outside.std(0).mean() < _VARIED:
        return False
    if inside.std(0).max() < _FLAT:
        return bool(inside.mean(0).abs().max() > _GREY)
    contrast = (inside.std(0).mean() / outside.std(0).mean()).item()
    itself = _correlation(*_pairs(picture, hidden, 2 * _GAP))
    return contrast < _MOST_CONTRAST and _correlation(inside, outside) > max(_ALIKE * itself, _CORRELATED)


def _correlation(one: Tensor, other: Tensor) -> float:
    x, y = ((side - side.mean(0)).flatten() for side in (one, other))
    return (x @ y / (x.norm() * y.norm()).clamp(min=torch.finfo(x.dtype).tiny)).item()


def _pairs(picture: Tensor, hidden: Tensor, beyond: int) -> tuple[Tensor, Tensor]:
    """Colours of pixels across straight edges of the mask, ``[pairs, channels]`` each: at the inner and outer side.

    Args:
        beyond: how far outside both lie; at 0 the inner one is hidden.
    """
    inner, outer = ([picture.new_zeros(0, picture.shape[1])] for _ in range(2))
    reach = 2 * _GAP + beyond
    for axis in (0, 1):
        if (length := hidden.shape[axis] - reach) <= 0:
            continue
        for forward in (True, False):
            places = [place if forward else reach - place for place in (0, beyond, reach)]
            edge, near, far = (hidden.narrow(axis, place, length) for place in places)
            clear = edge & ~far & (~near if beyond else near)
            for side, place in ((inner, places[1]), (outer, places[2])):
                side.append(picture[0].narrow(axis + 1, place, length)[:, clear].T)
    return torch.cat(inner), torch.cat(outer)
