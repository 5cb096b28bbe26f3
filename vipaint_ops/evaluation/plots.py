"""Pictures of results: contact sheets, pictures with their hole marked, curves of a fit.

The plots are 8-bit RGB pixels, ``[height, width, 3]``, for ``PIL.Image.fromarray``. No function opens a window or
changes matplotlib's settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError, optional_packages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]

CURVES = {
    "likelihood": "Misfit of the observation",
    "transitions": "KL between keypoints",
    "top_kl": "KL at the noisiest keypoint",
    "bound": "Bound on the log-evidence",
}
"""Terms of a history with a curve, and its heading. The surrogate of the top KL is left out: it has no value."""

_DPI = 100
_FONT = "DejaVu Sans"
_INK, _SOFT, _RULE, _CURVE = "#1f2933", "#66727f", "#e3e7eb", "#2f6f8f"
_TILE_SIDE = 192
_MARGIN, _GAP = 20, 12
_LARGEST_SHEET = 2**24
"""Pixels of all tiles: larger ones take minutes to write. Tiles are shrunk to it."""
_PANEL = (5.2, 3.1)


def contact_sheet(
    items: Sequence[tuple[str, Tensor]], columns: int, scale: int | None = None, title: str = ""
) -> Pixels:
    """A sheet of pictures in rows, each below its label.

    Args:
        items: labels, of one or more lines, and pictures, ``[channels, height, width]`` or ``[1, channels, height,
            width]`` in [-1, 1], with one or three channels, all of one size. Values outside are clamped.
        columns: pictures per row.
        scale: magnification, by whole pixels. Default: small pictures are enlarged to about 192 pixels.
        title: a heading over the sheet.

    Raises:
        InputError: there are no pictures, or they differ in size.
    """
    sizes = {tuple(image.shape[-2:]) for _, image in items}
    if len(sizes) != 1:
        raise InputError(f"a contact sheet takes pictures of one size, got {sorted(sizes) or 'none'}")
    height, width = sizes.pop()
    scale = scale or max(1, _TILE_SIDE // max(height, width))
    height, width = scale * height, scale * width
    shrink = min(1.0, (_LARGEST_SHEET / (len(items) * height * width)) ** 0.5)
    height, width = max(1, int(shrink * height)), max(1, int(shrink * width))
    text = min(max(round(width / 13), 12), 26)
    lines = 1 + max(name.count("\n") for name, _ in items)
    label, heading = round((0.5 + 1.4 * lines) * text), (round(2.1 * text) if title else 0)
    columns = min(columns, len(items))
    rows = -(-len(items) // columns)
    shape = (
        2 * _MARGIN - _GAP + heading + rows * (label + height + _GAP),
        2 * _MARGIN - _GAP + columns * (width + _GAP),
    )
    corners = [
        (_MARGIN + heading + row * (label + height + _GAP) + label, _MARGIN + column * (width + _GAP))
        for row, column in (divmod(index, columns) for index in range(len(items)))
    ]
    figure = _figure(shape[1] / _DPI, shape[0] / _DPI)
    if title:
        _write(figure, _MARGIN, _MARGIN + text, title, round(1.2 * text), "bold")
    for (name, _), (top, left) in zip(items, corners, strict=True):
        _write(figure, left, top - 0.55 * text, name, text)
    sheet = _pixels(figure)
    for (_, image), (top, left) in zip(items, corners, strict=True):
        sheet[top : top + height, left : left + width] = _tile(image, scale, (height, width))
    return sheet


def show_hole(picture: Tensor, mask: Tensor) -> Tensor:
    """A picture with its hole filled with pale diagonal stripes, ``[1, channels, height, width]`` in [-1, 1].

    Args:
        picture: ``[1, channels, height, width]``; not read where the mask is 0.
        mask: ``[1, 1, height, width]``, 1 observed and 0 hidden.
    """
    height, width = picture.shape[-2:]
    period = max(4, min(height, width) // 8)
    rows, columns = np.indices((height, width))
    stripe = mask.new_tensor((rows + columns) % period < period // 2).mul(0.10).add(0.72)
    return mask * picture.where(mask > 0, 0) + (1 - mask) * stripe


def heat_map(values: Tensor, largest: float) -> Pixels:
    """A map of numbers from 0 (black) to ``largest`` (pale yellow), in matplotlib's colours *inferno*.

    Args:
        values: ``[1, 1, height, width]``.
        largest: positive; values above are clamped.
    """
    with optional_packages():
        from matplotlib import colormaps

    shares = (values[0, 0] / largest).clamp(0, 1).cpu().numpy()
    return colormaps["inferno"](shares, bytes=True)[..., :3].copy()


def fit_curves(history: Sequence[Mapping[str, float]]) -> Pixels:
    """The terms of the bound over the iterations of a fit, in nats, one panel each.

    Args:
        history: one dictionary per iteration, as in ``HierarchicalPosterior.history``; terms may be missing.

    Raises:
        InputError: no iteration has a term to draw.
    """
    series = {
        name: [(step, record[name]) for step, record in enumerate(history, 1) if name in record] for name in CURVES
    }
    series = {name: points for name, points in series.items() if points}
    if not series:
        raise InputError("history has no loss terms to draw: the fit had no iterations")
    columns = min(len(series), 2)
    rows = -(-len(series) // columns)
    figure = _figure(columns * _PANEL[0], rows * _PANEL[1])
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(series) :]:
        axes.set_axis_off()
    for axes, (name, points) in zip(grid.flat, series.items(), strict=False):
        _draw_curve(axes, CURVES[name], *np.array(points, dtype=float).T)
        axes.set_xlim(1 - 0.02 * len(history), max(len(history), 2) + 0.02 * len(history))
    figure.tight_layout(pad=1.6, h_pad=2.2, w_pad=2.6)
    return _pixels(figure)


def _draw_curve(axes: Axes, heading: str, steps: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.plot(steps, values, color=_CURVE, linewidth=1.8, marker="o", markersize=4 if len(steps) <= 12 else 0)
    axes.set_title(heading, loc="left", family=_FONT, fontsize=11, color=_INK, pad=10)
    axes.set_title("last " + _number(values[-1], ".1f"), loc="right", family=_FONT, fontsize=11, color=_CURVE, pad=10)
    axes.set_xlabel("iteration", family=_FONT, fontsize=9, color=_SOFT)
    axes.set_ylabel("nats", family=_FONT, fontsize=9, color=_SOFT)
    axes.grid(axis="y", color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_SOFT)
    axes.tick_params(labelsize=9, labelfontfamily=_FONT, colors=_SOFT, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, ".10g")))
    _keep_start_out_of_scale(axes, values)


def _keep_start_out_of_scale(axes: Axes, values: NDArray[np.float64]) -> None:
    """Fit the vertical axis to a curve without its first tenth, which may be orders of magnitude off."""
    settled = values[len(values) // 10 :]
    low, high = settled.min(), settled.max()
    room = 0.1 * (high - low) or 1.0
    start = values[0]
    if low - 10 * room <= start <= high + 10 * room:
        low, high = min(low, start), max(high, start)
    else:
        above = start > high
        axes.annotate(
            f"starts at {_number(start, '.0f')}",
            (0.98, 0.96 if above else 0.04),
            xycoords="axes fraction",
            ha="right",
            va="top" if above else "bottom",
            family=_FONT,
            fontsize=9,
            color=_SOFT,
        )
    axes.set_ylim(low - room, high + room)


def _number(value: float, form: str) -> str:
    return format(value, "," + form).replace("-", "\N{MINUS SIGN}")


def _figure(width: float, height: float) -> Figure:
    """A white figure with its own canvas; ``width`` and ``height`` in inches."""
    with optional_packages():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Figure, x: float, y: float, text: str, size: float, weight: str = "normal") -> None:
    """Write text with its baseline at pixel (x, y) from the top left; ``size`` in pixels."""
    width, height = figure.get_size_inches() * _DPI
    figure.text(
        x / width,
        1 - y / height,
        text,
        va="baseline",
        family=_FONT,
        fontsize=size * 72 / _DPI,
        color=_INK,
        weight=weight,
        parse_math=False,
    )


def _pixels(figure: Figure) -> Pixels:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]


def _tile(image: Tensor, scale: int, size: tuple[int, int]) -> Pixels:
    image = image.detach().float().cpu().reshape(image.shape[-3:])
    image = image.repeat_interleave(scale, -2).repeat_interleave(scale, -1)
    image = F.interpolate(image[None], size=size, mode="area")[0] if image.shape[1:] != size else image
    return ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
