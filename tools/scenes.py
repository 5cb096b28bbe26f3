"""Procedural 64-pixel scenes with global structure, for the embedded prior.

A scene is a symmetric house under one light: whoever sees half of it knows the other half, except
where the sun stands. Every scene is a deterministic function of a vector of independent uniforms
``u`` in [0, 1]^D, so the prior over scenes is the uniform law on the cube and scenes that agree with
a visible part can be drawn exactly, by resampling coordinates and keeping what agrees
(:func:`sample_agreeing`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SIZE = 64
ATTRIBUTES = (
    "time_of_day",
    "horizon",
    "ground",
    "hills",
    "hill_height",
    "hill_offset",
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
    "window_columns",
    "window_style",
    "door_style",
    "door_colour",
    "trees",
    "tree_offset",
    "tree_size",
    "sun_side",
    "sun_offset",
    "sun_row",
)
DIMENSION = len(ATTRIBUTES)
SUN_ROWS = (6.0, 14.0)
SUN_RADIUS = 3.4
SUN_FREE_ROW = 22
"""Rows from here down never show the sun: outside the sun, scenes are exactly mirror-symmetric."""

_CHOICES = {
    "ground": ("grass", "sand", "snow", "water"),
    "hills": ("none", "side", "wide"),
    "roof_shape": ("gable", "hip", "flat"),
    "towers": ("none", "none", "central", "twin"),
    "tower_top": ("flat", "cone", "dome"),
    "window_rows": (1, 2),
    "window_columns": (1, 2),
    "window_style": ("square", "tall"),
    "door_style": ("square", "arch"),
    "trees": ("none", "conifer", "round"),
    "sun_side": ("left", "right"),
}
_RANGES = {
    "time_of_day": (0.0, 4.0),
    "horizon": (42.0, 48.0),
    "hill_height": (4.0, 11.0),
    "hill_offset": (18.0, 30.0),
    "wall_width": (12.0, 17.0),
    "wall_height": (15.0, 20.0),
    "roof_height": (6.0, 11.0),
    "tower_height": (6.0, 10.0),
    "tree_offset": (23.0, 27.0),
    "tree_size": (10.0, 15.0),
    "sun_offset": (12.0, 27.0),
    "sun_row": SUN_ROWS,
}
_GROUND = np.array([[0.36, 0.58, 0.26], [0.84, 0.74, 0.50], [0.92, 0.94, 0.97], [0.25, 0.42, 0.56]])
_WALLS = np.array(
    [
        [0.93, 0.90, 0.82],
        [0.80, 0.52, 0.40],
        [0.90, 0.78, 0.50],
        [0.66, 0.72, 0.78],
        [0.86, 0.66, 0.66],
        [0.62, 0.70, 0.54],
    ]
)
_ROOFS = np.array([[0.62, 0.24, 0.18], [0.30, 0.34, 0.42], [0.42, 0.28, 0.20], [0.24, 0.42, 0.40], [0.48, 0.30, 0.46]])
_DOORS = np.array([[0.36, 0.22, 0.14], [0.56, 0.14, 0.14], [0.14, 0.26, 0.46]])
_PALETTE_COUNTS = {"wall_colour": len(_WALLS), "roof_colour": len(_ROOFS), "door_colour": len(_DOORS)}
# dawn, day, gold, dusk, night
_SKY_TOP = np.array(
    [[0.52, 0.56, 0.80], [0.28, 0.54, 0.90], [0.44, 0.52, 0.78], [0.26, 0.22, 0.46], [0.04, 0.06, 0.18]]
)
_SKY_LOW = np.array(
    [[0.98, 0.76, 0.68], [0.76, 0.88, 0.98], [1.00, 0.82, 0.48], [0.92, 0.48, 0.36], [0.14, 0.18, 0.36]]
)
_AMBIENT = np.array(
    [[0.92, 0.84, 0.86], [1.00, 1.00, 1.00], [1.00, 0.88, 0.68], [0.66, 0.52, 0.58], [0.32, 0.36, 0.52]]
)
_SUN = np.array([[1.00, 0.90, 0.70], [1.00, 0.98, 0.78], [1.00, 0.92, 0.50], [1.00, 0.66, 0.30], [0.94, 0.95, 0.99]])
_LIT = np.array([0.25, 0.0, 0.15, 0.85, 1.0])


def draw_uniforms(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``count`` points of the unit cube that parametrises scenes; returns ``[count, D]``."""
    return rng.random((count, DIMENSION))


def attributes(u: np.ndarray) -> dict[str, np.ndarray]:
    """Name the attributes of scenes ``u`` (``[n, D]`` in [0, 1)): strings for kinds, pixels for lengths."""
    values = {}
    for column, name in enumerate(ATTRIBUTES):
        x = u[:, column]
        if name in _RANGES:
            low, high = _RANGES[name]
            values[name] = low + (high - low) * x
        elif name in _PALETTE_COUNTS:
            values[name] = (x * _PALETTE_COUNTS[name]).astype(int)
        else:
            choices = np.array(_CHOICES[name])
            values[name] = choices[(x * len(choices)).astype(int)]
    return values


def _between(x, low, high):
    """Antialiased coverage of the interval [low, high] by pixels centred at ``x``."""
    return np.clip(np.minimum(x - low, high - x) + 0.5, 0.0, 1.0)


class _Canvas:
    """Right half of ``n`` scenes, ``[n, rows, half columns, 3]``, painted from back to front."""

    def __init__(self, count: int):
        self.pixels = np.zeros((count, SIZE, SIZE // 2, 3), dtype=np.float32)

    def paint(self, coverage, colour):
        """Blend ``colour`` (broadcastable to the canvas) over it with ``coverage`` in [0, 1]."""
        coverage = np.asarray(coverage, dtype=np.float32)[..., None]
        self.pixels += coverage * (np.asarray(colour, dtype=np.float32) - self.pixels)


def render(u: np.ndarray) -> np.ndarray:
    """Paint the scenes of ``u`` (``[n, D]``): ``[n, 3, 64, 64]`` float32 RGB in [0, 1]."""
    a = attributes(u)
    half = paint_half(a, np.arange(SIZE // 2, dtype=np.float32) + 0.5)
    image = np.concatenate([half[:, :, ::-1], half], axis=2)
    _paint_sun(image, a)
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2))


def paint_half(a: dict[str, np.ndarray], across: np.ndarray) -> np.ndarray:
    """Half of the scenes with attributes ``a``, without the sun: ``[n, 64, 32, 3]``.

    Args:
        across: the distance of each column from the middle of the house, ``[32]``.
    """
    light = light_at(a["time_of_day"])
    a = {name: value[:, None, None] if value.dtype.kind in "fi" else value for name, value in a.items()}
    rows, across = np.arange(SIZE, dtype=np.float32)[None, :, None], across[None, None, :]
    canvas = _Canvas(len(a["horizon"]))
    _paint_sky_and_hills(canvas, a, light, rows, across)
    _paint_ground(canvas, a, light, rows, across)
    _paint_trees(canvas, a, light, rows, across)
    _paint_house(canvas, a, light, rows, across)
    _paint_towers(canvas, a, light, rows, across)
    _paint_openings(canvas, a, light, rows, across)
    _paint_water(canvas, a, light, rows)
    return canvas.pixels


def light_at(t: np.ndarray) -> dict[str, np.ndarray]:
    """Interpolate the five palettes of the day at ``t`` in [0, 4); colours are ``[n, 1, 1, 3]``."""
    index = t.astype(int)
    part = (t - index)[:, None]

    def mix(table):
        return ((1 - part) * table[index] + part * table[index + 1])[:, None, None, :]

    return {
        "sky_top": mix(_SKY_TOP),
        "sky_low": mix(_SKY_LOW),
        "ambient": mix(_AMBIENT),
        "sun": mix(_SUN),
        "lit": mix(_LIT[:, None]),
    }


def _paint_sky_and_hills(canvas, a, light, rows, across):
    depth = np.clip(rows / a["horizon"], 0, 1)[..., None]
    canvas.paint(np.ones_like(canvas.pixels[..., 0]), (1 - depth) * light["sky_top"] + depth * light["sky_low"])
    wide = (a["hills"] == "wide")[:, None, None]
    centre = np.where(wide, 0.0, a["hill_offset"])
    spread = np.where(wide, 26.0, 9.0)
    ridge = a["horizon"] - a["hill_height"] * np.exp(-(((across - centre) / spread) ** 2))
    haze = 0.55 * light["sky_low"] + 0.45 * light["ambient"] * np.array([0.34, 0.46, 0.40])
    canvas.paint(np.clip(rows - ridge + 0.5, 0, 1) * (a["hills"] != "none")[:, None, None], haze)


def _paint_ground(canvas, a, light, rows, across):
    colour = _GROUND[np.searchsorted(sorted(_CHOICES["ground"]), a["ground"])][:, None, None, :]
    near = np.clip((rows - a["horizon"]) / (SIZE - a["horizon"]), 0, 1)[..., None]
    ground = np.clip(rows - a["horizon"] + 0.5, 0, 1)
    canvas.paint(ground * np.ones_like(across), colour * light["ambient"] * (0.82 + 0.18 * near))
    path = _between(across, -9.0, 2.5 + 0.35 * (rows - a["horizon"])) * ground
    path = path * (a["ground"] != "water")[:, None, None]
    canvas.paint(path, light["ambient"] * np.array([0.70, 0.64, 0.56]))


def _paint_trees(canvas, a, light, rows, across):
    base = a["horizon"] + 1.0
    height, centre = a["tree_size"], a["tree_offset"]
    conifer, round_ = ((a["trees"] == kind)[:, None, None] for kind in ("conifer", "round"))
    trunk = _between(across, centre - 1.0, centre + 1.0) * _between(rows, base - 5.0, base + 1.0)
    canvas.paint(trunk * (conifer | round_), light["ambient"] * np.array([0.34, 0.24, 0.16]))
    rise = (base - 3.0 - rows) / (height - 2.0)
    cone = np.clip(4.6 * (1 - rise) - np.abs(across - centre) + 0.5, 0, 1) * _between(rise * height, 0.0, height)
    canvas.paint(cone * conifer, light["ambient"] * np.array([0.14, 0.36, 0.26]))
    radius = 0.36 * height
    crown = np.clip(radius - np.hypot(across - centre, rows - base + 3.5 + radius) + 0.5, 0, 1)
    canvas.paint(crown * round_, light["ambient"] * np.array([0.26, 0.48, 0.18]))


def _wall_box(a):
    base = a["horizon"] + 2.0
    return base, base - a["wall_height"]


def _paint_house(canvas, a, light, rows, across):
    base, top = _wall_box(a)
    wall = _WALLS[a["wall_colour"][:, 0, 0]][:, None, None, :]
    canvas.paint(_between(across, -9.0, a["wall_width"]) * _between(rows, top, base), wall * light["ambient"])
    rise = np.clip((top - rows) / a["roof_height"], 0, 1)
    eaves = a["wall_width"] + 1.5
    gable, hip, flat = ((a["roof_shape"] == kind)[:, None, None] for kind in ("gable", "hip", "flat"))
    half_width = eaves * (1 - rise) * gable + (eaves - 0.55 * eaves * rise) * hip + eaves * flat
    height = np.where(flat, 2.5, a["roof_height"])
    roof = np.clip(half_width - across + 0.5, 0, 1) * _between(rows, top - height, top)
    canvas.paint(roof, _roof_colour(a, light))


def _roof_colour(a, light):
    return _ROOFS[a["roof_colour"][:, 0, 0]][:, None, None, :] * light["ambient"]


def _paint_towers(canvas, a, light, rows, across):
    base, wall_top = _wall_box(a)
    central, twin = ((a["towers"] == kind)[:, None, None] for kind in ("central", "twin"))
    present = central | twin
    centre = np.where(twin, a["wall_width"] - 1.0, 0.0)
    half_width = np.where(twin, 3.5, 4.5)
    top = wall_top - a["tower_height"] + np.where(twin, 2.0, -2.0)
    offset = np.abs(across - centre)
    wall = _WALLS[a["wall_colour"][:, 0, 0]][:, None, None, :] * 0.9
    body = np.clip(half_width - offset + 0.5, 0, 1) * _between(rows, top, base)
    canvas.paint(body * present, wall * light["ambient"])
    flat, cone, dome = ((a["tower_top"] == kind)[:, None, None] for kind in ("flat", "cone", "dome"))
    rise = top - rows
    eaves = half_width + 1.0
    cap = np.clip(eaves - offset + 0.5, 0, 1) * _between(rise, 0.0, 2.0) * flat
    cap = cap + np.clip(eaves * (1 - rise / 8.0) - offset + 0.5, 0, 1) * _between(rise, 0.0, 8.0) * cone
    ball = np.clip(eaves - np.hypot(offset, rise) + 0.5, 0, 1) * _between(rise, 0.0, 9.0)
    canvas.paint((cap + ball * dome) * present, _roof_colour(a, light))
    slit = np.clip(1.4 - offset + 0.5, 0, 1) * _between(rows, top + 2.0, top + 6.0)
    canvas.paint(slit * present, _glass(light))


def _glass(light):
    dark = light["ambient"] * np.array([0.30, 0.38, 0.50])
    return (1 - light["lit"]) * dark + light["lit"] * np.array([1.0, 0.86, 0.44])


def _paint_openings(canvas, a, light, rows, across):
    base, top = _wall_box(a)
    half_door = 2.8
    door_top = base - 8.0
    door = _between(across, -9.0, half_door) * _between(rows, door_top, base)
    arch = np.clip(half_door - np.hypot(across, rows - door_top) + 0.5, 0, 1)
    door = np.maximum(door, arch * (a["door_style"] == "arch")[:, None, None])
    canvas.paint(door, _DOORS[a["door_colour"][:, 0, 0]][:, None, None, :] * light["ambient"])
    inner = np.where((a["towers"] == "twin")[:, None, None], a["wall_width"] - 4.5, a["wall_width"])
    left = half_door + 1.0
    tall = (a["window_style"] == "tall")[:, None, None]
    half_width, half_height = np.where(tall, 1.5, 2.0), np.where(tall, 2.6, 2.0)
    columns = np.where(inner - left < 10.0, 1, a["window_columns"])
    grid = np.zeros_like(canvas.pixels[..., 0])
    for row in range(2):
        middle = top + np.where(a["window_rows"] == 2, 4.2 + 6.6 * row, 5.0)
        line = _between(rows, middle - half_height, middle + half_height) * (row < a["window_rows"])
        for column in range(2):
            centre = left + (inner - left) * (2 * column + 1) / (2 * columns)
            grid = np.maximum(
                grid, line * np.clip(half_width - np.abs(across - centre) + 0.5, 0, 1) * (column < columns)
            )
    canvas.paint(grid, _glass(light))


def _paint_water(canvas, a, light, rows):
    """Replace the ground below the quay by the darkened mirror image of what stands above it."""
    shore = np.round(a["horizon"] + 3.0).astype(int)
    source = np.clip(2 * shore - 1 - rows.astype(int), 0, SIZE - 1)
    mirrored = np.take_along_axis(canvas.pixels, source[..., None], axis=1)
    tint = light["ambient"] * np.array([0.20, 0.34, 0.48])
    wet = (rows >= shore) & (a["ground"] == "water")[:, None, None]
    canvas.paint(wet * np.ones_like(canvas.pixels[..., 0]), 0.62 * mirrored + 0.38 * tint)


def _paint_sun(image, a):
    side = np.where(a["sun_side"] == "right", 1.0, -1.0)
    columns = (np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2)[None, None, :]
    rows = np.arange(SIZE, dtype=np.float32)[None, :, None]
    distance = np.hypot(columns - (side * a["sun_offset"])[:, None, None], rows - a["sun_row"][:, None, None])
    disc = np.clip(SUN_RADIUS - distance + 0.5, 0, 1).astype(np.float32)[..., None]
    image += disc * (light_at(a["time_of_day"])["sun"].astype(np.float32) - image)


def sample_scenes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``count`` scenes; returns images ``[count, 3, 64, 64]`` in [0, 1] and their ``u``."""
    u = draw_uniforms(count, np.random.default_rng(seed))
    return render(u), u


def sample_agreeing(
    u: np.ndarray,
    visible: np.ndarray,
    chains: int,
    seed: int,
    steps: int = 200,
    tolerance: float = 0.02,
    render: Callable[[np.ndarray], np.ndarray] = render,
) -> np.ndarray:
    """Draw scenes that agree with the visible part of given ones: the true completions.

    Metropolis on the unit cube: a proposal redraws a random subset of coordinates from the prior and
    is kept when every visible pixel stays within ``tolerance``. Each chain starts at the truth, which
    is itself a draw from the target, so the chain is stationary from its first step.

    Args:
        u: scenes, ``[n, D]``.
        visible: boolean ``[64, 64]``, true where observed.
        chains: completions per scene.
        render: what ``u`` looks like.

    Returns:
        ``[n, chains, D]`` uniforms of agreeing scenes.
    """
    rng = np.random.default_rng(seed)
    state = np.repeat(u, chains, axis=0)
    target = np.repeat(render(u)[:, :, visible], chains, axis=0)
    for step in range(steps):
        share = (1 / u.shape[1], 3 / u.shape[1], 0.5)[step % 3]
        redraw = rng.random(state.shape) < share
        proposal = np.where(redraw, rng.random(state.shape), state)
        agrees = (np.abs(render(proposal)[:, :, visible] - target) <= tolerance).all(axis=(1, 2))
        state[agrees] = proposal[agrees]
    return state.reshape(len(u), chains, -1)
