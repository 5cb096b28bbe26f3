"""Judge scenes from their pixels alone: symmetry, horizon, light and sun.

Every function takes a batch of pictures ``[n, 3, 64, 64]`` in [0, 1], torch or numpy, and returns one value a
picture. A scene is read as two halves, each mirrored to run from the middle outwards, so that a picture made of two
halves that do not belong together is found out by comparing what each half says.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tools import scenes

Array = NDArray[np.float64]

EDGE_COLUMNS = 4
SUN_THRESHOLD = 0.45
"""Score above which a half shows a sun: its disc is sun-coloured and what surrounds it is not."""

_SKY_COLUMNS = slice(22, 32)
"""Columns, from the middle outwards, that neither house nor tower reaches."""
_TOP_ROWS, _LOW_ROWS = slice(0, 2), slice(22, 28)
"""Sky rows above the sun, and below it but above every hill and tree."""
_HORIZON_ROWS, _HORIZON_COLUMNS = np.arange(34, 55), slice(29, 32)
_HORIZONS = np.arange(40.0, 50.01, 0.25)
_TREES = np.array([[0.14, 0.36, 0.26], [0.26, 0.48, 0.18]])
_TREE_CLEARANCE = 2
"""Crowns end this many rows above the horizon."""
_FAR = 0.12
"""Squared colour distance at which a pixel counts as none of the things expected there."""
_HILL_PENALTY = 0.0005
"""What assuming a hill costs a pixel, so that haze does not stand in for the blurred pixels of a bare horizon."""
_SUN_SEARCH = (slice(3, 18), slice(8, 30))
"""Rows and columns, from the middle outwards, where the centre of a sun is looked for."""
_SUN_GAP = 7.0


class Suns(NamedTuple):
    """The most sun-like disc of each picture, and whether it is one."""

    present: NDArray[np.bool_]
    side: NDArray[np.str_]
    """"left" or "right"; of the strongest candidate where none is present."""
    x: Array
    """Column in pixels, 0 at the left pixel's centre."""
    y: Array
    """Row in pixels, 0 at the top pixel's centre."""
    score: Array
    """About 1 on a sun in clear sky, 0 on sky."""


def symmetry_error(images: ArrayLike) -> Array:
    """Mean absolute difference to the mirror image, over the rows that never show the sun."""
    below = _pictures(images)[:, :, scenes.SUN_FREE_ROW :]
    return np.abs(below - below[..., ::-1]).mean(axis=(1, 2, 3))


def edge_agreement(images: ArrayLike) -> Array:
    """Mean absolute difference between the outermost four columns of either side, mirrored; 0 is agreement."""
    below = _pictures(images)[:, :, scenes.SUN_FREE_ROW :]
    return np.abs(below[..., :EDGE_COLUMNS] - below[..., ::-1][..., :EDGE_COLUMNS]).mean(axis=(1, 2, 3))


def palette_error(images: ArrayLike) -> Array:
    """Root-mean-square distance of the sky's colours, top and low, to the nearest sky of any time of day."""
    return _light(_halves(images).mean(axis=1)).error


def horizon(images: ArrayLike) -> Array:
    """Row of the horizon at the left and the right edge, ``[n, 2]``, in pixels (to a quarter).

    At each edge the outermost three columns are fitted by a step: above it sky, haze or tree under the light that
    the sky of that half shows, below it one of the four grounds. The row of least squared error is the horizon.
    """
    halves = _halves(images)
    count = len(halves)
    flat = halves.reshape(2 * count, *halves.shape[2:])
    profile = flat[:, :, _HORIZON_ROWS][..., _HORIZON_COLUMNS]
    return _fit_step(profile, _light(flat).time).reshape(count, 2)


def horizon_mismatch(images: ArrayLike) -> Array:
    """Distance in rows between the horizons of the two edges."""
    left, right = horizon(images).T
    return np.abs(left - right)


def find_sun(images: ArrayLike) -> Suns:
    """Find the sun (or moon) of each picture by a matched filter against the sky's gradient."""
    score, across, row = _strongest(_sun_scores(_halves(images)))
    right = score[:, 1] > score[:, 0]
    each, side = np.arange(len(right)), right.astype(int)
    x = (scenes.SIZE - 1) / 2 + np.where(right, 1, -1) * across[each, side]
    best = score[each, side]
    return Suns(best > SUN_THRESHOLD, np.where(right, "right", "left"), x, row[each, side], best)


def count_suns(images: ArrayLike) -> NDArray[np.int64]:
    """Number of suns in the left and in the right half, ``[n, 2]``; at most three are counted in each."""
    scores = _sun_scores(_halves(images))
    count = np.zeros(scores.shape[:2], dtype=np.int64)
    for _ in range(3):
        best, x, y = _strongest(scores)
        count += best > SUN_THRESHOLD
        scores = np.where(_distance(scores, x, y) < _SUN_GAP, -np.inf, scores)
    return count


def check(images: ArrayLike) -> dict[str, NDArray[Any]]:
    """Everything above under its name, one array each."""
    rows, sun, suns = horizon(images), find_sun(images), count_suns(images)
    return {
        "symmetry_error": symmetry_error(images),
        "edge_agreement": edge_agreement(images),
        "palette_error": palette_error(images),
        "horizon_left": rows[:, 0],
        "horizon_right": rows[:, 1],
        "horizon_mismatch": np.abs(rows[:, 0] - rows[:, 1]),
        "sun_present": sun.present,
        "sun_side": sun.side,
        "sun_x": sun.x,
        "sun_y": sun.y,
        "suns_left": suns[:, 0],
        "suns_right": suns[:, 1],
    }


def _pictures(images: ArrayLike) -> Array:
    return np.asarray(images, dtype=np.float64)


def _halves(images: ArrayLike) -> Array:
    """Left and right half from the middle outwards: ``[n, 2, 3, 64, 32]``."""
    pictures = _pictures(images)
    middle = scenes.SIZE // 2
    return np.stack([pictures[..., :middle][..., ::-1], pictures[..., middle:]], axis=1)


class _Light(NamedTuple):
    time: Array
    error: Array


@cache
def _skies() -> tuple[Array, Array]:
    """Times of day over a grid of times and horizons, and the colours there of top and low sky (``[grid, 6]``)."""
    time, row = (g.ravel() for g in np.meshgrid(np.linspace(0, 4, 401)[:-1], np.arange(42.0, 48.1), indexing="ij"))
    light = scenes.light_at(time)
    top, low = light["sky_top"][:, 0, 0], light["sky_low"][:, 0, 0]

    def mean_colour(rows: slice) -> Array:
        depth = ((rows.start + rows.stop - 1) / 2 / row)[:, None]
        return (1 - depth) * top + depth * low

    return time, np.concatenate([mean_colour(_TOP_ROWS), mean_colour(_LOW_ROWS)], axis=1)


def _light(half: Array) -> _Light:
    """Time of day of the sky of halves ``[n, 3, 64, 32]``, and how far the sky is from any."""
    sky = half[..., _SKY_COLUMNS]
    seen = np.concatenate([sky[:, :, rows].mean(axis=(2, 3)) for rows in (_TOP_ROWS, _LOW_ROWS)], axis=1)
    time, colours = _skies()
    squared = (seen**2).sum(1)[:, None] + (colours**2).sum(1) - 2 * seen @ colours.T
    nearest = squared.argmin(1)
    return _Light(time[nearest], np.sqrt(np.square(seen - colours[nearest]).mean(1)))


def _fit_step(edge: Array, time: Array) -> Array:
    """Horizon of edge pixels ``[n, 3, rows, columns]`` under the light of ``time``, by truncated least squares."""
    light = {name: colour[:, 0, 0] for name, colour in scenes.light_at(time).items()}
    haze = 0.55 * light["sky_low"] + 0.45 * light["ambient"] * np.array([0.34, 0.46, 0.40])
    haze, *trees = (c[..., None] for c in (haze, *(light["ambient"] * colour for colour in _TREES)))
    hill, tree = _cost(edge, haze), _cost(edge, *trees)
    in_water = _cost(edge, *(_mirrored(colour, light) for colour in (haze, *trees)))
    costs = np.empty((len(edge), len(_HORIZONS)))
    for index, step in enumerate(_HORIZONS):
        past = (_HORIZON_ROWS - step)[:, None]
        plain = _cost(edge, _sky(light, _HORIZON_ROWS / step))
        plain = np.where(past < -_TREE_CLEARANCE, np.minimum(plain, tree), plain)
        above = np.stack([plain, np.minimum(plain, hill) + _HILL_PENALTY])
        grounds = _grounds(light, step)
        below = np.stack([_cost(edge, ground) for ground in grounds])
        sky_in_water = _sky(light, (2 * step + 5 - _HORIZON_ROWS) / step)
        wet = np.minimum(in_water, _cost(edge, *(_mirrored(c, light) for c in (sky_in_water, grounds[-1]))))
        below[-1] = np.where(past > 4, wet, np.where(past > 2, np.minimum(wet, below[-1]), below[-1]))
        share = np.clip(past + 0.5, 0, 1)
        total = ((1 - share) * above[:, None] + share * below).mean(axis=(3, 4))
        costs[:, index] = total.min(axis=(0, 1))
    return _HORIZONS[costs.argmin(axis=1)]


def _sky(light: dict[str, Array], depth: Array) -> Array:
    depth = np.clip(depth, 0, 1)
    return light["sky_top"][..., None] * (1 - depth) + light["sky_low"][..., None] * depth


def _grounds(light: dict[str, Array], step: float) -> Array:
    """Colour of the four grounds at each row below a horizon at ``step``: ``[4, n, 3, rows]``, water last."""
    near = np.clip((_HORIZON_ROWS - step) / (scenes.SIZE - step), 0, 1)
    return (scenes._GROUND[:, None] * light["ambient"])[..., None] * (0.82 + 0.18 * near)


def _mirrored(colour: Array, light: dict[str, Array]) -> Array:
    return 0.62 * colour + 0.38 * (light["ambient"] * np.array([0.20, 0.34, 0.48]))[..., None]


def _cost(edge: Array, *colours: Array) -> Array:
    """Squared distance of pixels to the nearest of colours ``[n, 3, rows]``, truncated: ``[n, rows, columns]``."""
    squared = [np.square(edge - colour[..., None]).sum(axis=1) for colour in colours]
    return np.minimum.reduce([*squared, np.full_like(squared[0], _FAR)])


def _sun_scores(halves: Array) -> Array:
    """How much a sun is centred at each pixel of halves ``[n, 2, 3, 64, 32]``: ``[n, 2, rows, columns]``.

    A pixel is 0 where it has the colour of the sky at its row and 1 where it has that of the sun at the hour; the
    score is its mean over a sun's disc less its mean over a ring around it.
    """
    flat = halves.reshape(-1, *halves.shape[2:])
    sky = flat[..., _SKY_COLUMNS]
    top, low = (sky[:, :, band].mean(axis=(2, 3))[..., None] for band in (_TOP_ROWS, _LOW_ROWS))
    centres = [(band.start + band.stop - 1) / 2 for band in (_TOP_ROWS, _LOW_ROWS)]
    part = (np.arange(_LOW_ROWS.stop) - centres[0]) / (centres[1] - centres[0])
    background = (top + (low - top) * part)[..., None]
    sun = scenes.light_at(_light(flat).time)["sun"].transpose(0, 3, 1, 2)
    contrast = np.square(background - sun).sum(axis=1)
    likeness = np.clip(1 - np.square(flat[:, :, : _LOW_ROWS.stop] - sun).sum(axis=1) / contrast, 0, 1)
    disc, ring = (_mean_under(likeness, kernel) for kernel in _sun_kernels())
    scores = np.full_like(disc, -np.inf)
    rows, columns = _SUN_SEARCH
    scores[:, rows, columns] = (disc - ring)[:, rows, columns]
    return scores.reshape(*halves.shape[:2], *scores.shape[1:])


@cache
def _sun_kernels() -> tuple[Array, Array]:
    """A sun's disc, and a ring around it clear of its blurred edge."""
    offset = np.arange(-7, 8)
    radius = np.hypot(offset[:, None], offset)
    disc = np.clip(scenes.SUN_RADIUS - radius + 0.5, 0, 1)
    ring = ((radius >= scenes.SUN_RADIUS + 1.6) & (radius <= scenes.SUN_RADIUS + 3.4)).astype(float)
    return disc, ring


def _mean_under(maps: Array, kernel: Array) -> Array:
    """Mean of maps ``[n, rows, columns]`` under ``kernel`` around every pixel, over what lies inside the map."""
    pad = len(kernel) // 2
    padded = np.pad(np.concatenate([maps, np.ones_like(maps[:1])]), ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape, axis=(1, 2))
    total = np.einsum("nrcij,ij->nrc", windows, kernel)
    return total[:-1] / total[-1]


def _strongest(scores: Array) -> tuple[Array, Array, Array]:
    """Highest score of each half, with its distance from the middle and its row, to parts of a pixel."""
    flat = scores.reshape(*scores.shape[:2], -1)
    best = flat.max(axis=2)
    rows, columns = np.divmod(flat.argmax(axis=2), scores.shape[3])
    near = _distance(scores, columns + 0.5, rows) < 3
    weight = np.where(near, np.clip(scores - best[..., None, None] + 0.25, 0, None), 0)
    grid_rows, grid_columns = np.indices(scores.shape[2:])
    total = weight.sum(axis=(2, 3))
    return best, (weight * (grid_columns + 0.5)).sum(axis=(2, 3)) / total, (weight * grid_rows).sum(axis=(2, 3)) / total


def _distance(scores: Array, across: Array, row: Array) -> Array:
    """Distance of every pixel of the score maps to one point of each."""
    grid_rows, grid_columns = np.indices(scores.shape[2:])
    return np.hypot(grid_columns + 0.5 - across[..., None, None], grid_rows - row[..., None, None])
