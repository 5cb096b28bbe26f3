"""Harder scenes than those of :mod:`tools.scenes`: two houses, up to three suns, and a sign before each house.

The second house repeats the first one, and its sign, in half of all streets. In the others both are independent, so who
sees one house does not know the other. Suns are evenly spaced in a row. As in :mod:`tools.scenes`, a street is a
deterministic function of independent uniforms, and true completions are drawn by
:func:`tools.scenes.sample_agreeing`.
"""

from __future__ import annotations

import numpy as np

from tools import scenes

HOUSE = (
    "wall_colour",
    "wall_width",
    "wall_height",
    "roof_shape",
    "roof_colour",
    "roof_height",
    "towers",
    "tower_top",
    "tower_height",
    "window_rows",
    "window_style",
    "door_style",
    "door_colour",
)
"""What the second house does not share with the first; the land and the light are common."""
_COLUMNS = [scenes.ATTRIBUTES.index(name) for name in HOUSE]
LETTERS = np.array(
    [
        [[1, 0, 1], [1, 1, 1], [1, 0, 1]],
        [[1, 1, 1], [0, 1, 0], [0, 1, 0]],
        [[1, 0, 0], [1, 0, 0], [1, 1, 1]],
        [[1, 1, 1], [1, 0, 1], [1, 1, 1]],
    ],
    dtype=np.float32,
)
WORD = 3
SUNS = ("suns", "first_sun", "sun_gap", "sun_row")
DIMENSION = scenes.DIMENSION + len(HOUSE) + 1 + 2 * WORD + len(SUNS)
"""The first house and the land, the second house, whether it repeats the first, both signs, and the suns."""
_HALF = scenes.SIZE // 2


def draw_uniforms(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``count`` points of the unit cube that parametrises streets; returns ``[count, D]``."""
    return rng.random((count, DIMENSION))


def sample_scenes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``count`` streets; returns images ``[count, 3, 64, 64]`` in [0, 1] and their ``u``."""
    u = draw_uniforms(count, np.random.default_rng(seed))
    return render(u), u


def render(u: np.ndarray) -> np.ndarray:
    """Paint the streets of ``u`` (``[n, D]``): ``[n, 3, 64, 64]`` float32 RGB in [0, 1]."""
    first, other, repeats, words, suns = np.split(u, np.cumsum([scenes.DIMENSION, len(HOUSE), 1, 2 * WORD]), axis=1)
    second = first.copy()
    second[:, _COLUMNS] = np.where(repeats < 0.5, first[:, _COLUMNS], other)
    words = (words * len(LETTERS)).astype(int)
    right_word = np.where(repeats < 0.5, words[:, :WORD], words[:, WORD:])
    halves = [_house(first, words[:, :WORD]), _house(second, right_word)]
    image = np.concatenate(halves, axis=2)
    _paint_suns(image, suns, scenes.attributes(first)["time_of_day"])
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2))


def _house(u: np.ndarray, word: np.ndarray) -> np.ndarray:
    """One half of the street, ``[n, 64, 32, 3]``."""
    a = scenes.attributes(u)
    a["wall_width"] = 9.5 + 0.6 * (a["wall_width"] - 12.0)
    a["trees"] = np.full_like(a["trees"], "none")
    across = np.abs(np.arange(_HALF, dtype=np.float32) - (_HALF - 1) / 2)
    pixels = scenes.paint_half(a, across)
    board = np.concatenate([LETTERS[word], np.zeros((len(u), WORD, 3, 1), dtype=np.float32)], axis=3)
    text = board.transpose(0, 2, 1, 3).reshape(len(u), 3, 4 * WORD)[:, :, :-1].repeat(2, axis=1).repeat(2, axis=2)
    light = scenes.light_at(a["time_of_day"])["ambient"]
    top, left = scenes.SIZE - 9, (_HALF - text.shape[2]) // 2
    pixels[:, top - 1 : top + 7, left - 1 : left + text.shape[2] + 1] = light * np.array([0.95, 0.93, 0.85])
    words = pixels[:, top : top + 6, left : left + text.shape[2]]
    words += text[..., None] * (light * np.array([0.15, 0.10, 0.10]) - words)
    return pixels


def _paint_suns(image: np.ndarray, u: np.ndarray, time_of_day: np.ndarray) -> None:
    count = 1 + (3 * u[:, 0]).astype(int)
    first, gap = 5.0 + 18.0 * u[:, 1], 12.0 + 6.0 * u[:, 2]
    row = 5.0 + 3.0 * u[:, 3]
    columns, rows = np.arange(scenes.SIZE)[None, None, :], np.arange(scenes.SIZE)[None, :, None]
    colour = scenes.light_at(time_of_day)["sun"].astype(np.float32)
    for i in range(3):
        distance = np.hypot(columns - (first + i * gap)[:, None, None], rows - row[:, None, None])
        disc = np.clip(scenes.SUN_RADIUS - distance + 0.5, 0, 1) * (i < count)[:, None, None]
        image += disc[..., None].astype(np.float32) * (colour - image)
