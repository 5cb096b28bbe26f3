"""Common parts of the benchmarks: arguments, intervals, stored runs, and reports (table, raw numbers, plot)."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results"


def arguments(description: str | None, first_seed: int, seeds: int, methods: Sequence[str] = ()) -> argparse.Namespace:
    """Parse the common command line: ``.seeds`` is a range, ``.out`` a folder, ``.methods`` a part of ``methods``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=seeds, help=f"how many, from {first_seed} on (default {seeds})")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table, the raw numbers and the plot")
    if methods:
        parser.add_argument("--methods", nargs="*", default=methods, choices=methods, help="only these")
    parsed = parser.parse_args()
    parsed.seeds = range(first_seed, first_seed + parsed.seeds)
    return parsed


class Interval(NamedTuple):
    """A mean over seeds and the half width of its 95 % interval (NaN for one seed)."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if math.isnan(self.half_width) else f"{self.mean:.3f} ± {self.half_width:.3f}"


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval by Student's t. The quantile is expanded to three terms in 1 / freedom."""
    freedom, z = len(values) - 1, 1.96
    if freedom == 0:
        return Interval(values[0], math.nan)
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return Interval(fmean(values), t * stdev(values) / len(values) ** 0.5)


Figures = dict[str, float]


class Store:
    """Figures by seed, in one file for each problem and method."""

    def __init__(self, folder: Path):
        self._folder = folder

    def _path(self, problem: str, method: str) -> Path:
        return self._folder / problem / f"{method}.json"

    def read(self, problem: str, method: str) -> dict[str, Figures]:
        path = self._path(problem, method)
        return json.loads(path.read_text()) if path.exists() else {}

    def intervals(self, problem: str, method: str) -> dict[str, Interval]:
        """The interval of each figure over the seeds that have it; empty without runs."""
        runs = list(self.read(problem, method).values())
        names = dict.fromkeys(name for run in runs for name in run)
        return {name: interval([run[name] for run in runs if name in run]) for name in names}

    def add(self, problem: str, method: str, seed: int, figures: Figures) -> None:
        path = self._path(problem, method)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.read(problem, method) | {str(seed): figures}))


class Report:
    """Lines of Markdown, printed at once and written at the end with the raw numbers and the plot.

    Args:
        name: of the benchmark; its files are ``NAME.md``, ``NAME.json`` and ``NAME.png``.
        title: heading.
        seeds: the seeds of the run.
        out: folder of the files.
    """

    def __init__(self, name: str, title: str, seeds: range, out: Path):
        self._path, self._lines = out / name, list[str]()
        self._run = {"seeds": list(seeds), "date": date.today().isoformat()}
        self.say(f"# {title}\n\nSeeds {seeds[0]} to {seeds[-1]}, {date.today()}; ± is a 95 % interval over seeds.")

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self._lines.append(text)
        print("\n" + text, flush=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table; the first column is text, the others are figures."""
        lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
        self.say("\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines))

    def panels(self, count: int, width: float = 4.2, height: float = 3.2) -> list[Axes]:
        """Panels of the plot, at most four in a row. Sizes are in inches."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        columns, rows = min(count, 4), -(-count // 4)
        self._figure = Figure(figsize=(columns * width, rows * height), dpi=100, layout="constrained")
        FigureCanvasAgg(self._figure)
        axes = [self._figure.add_subplot(rows, columns, k + 1) for k in range(count)]
        for one in axes:
            one.spines[["top", "right"]].set_visible(False)
        return axes

    def write(self, results: Any) -> None:
        """Write the files: the report, ``results`` as JSON, and the plot."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.with_suffix(".md").write_text("\n\n".join(self._lines) + "\n")
        self._path.with_suffix(".json").write_text(json.dumps(self._run | {"results": results}, indent=1) + "\n")
        self._figure.savefig(self._path.with_suffix(".png"))


def draw_intervals(axes: Axes, title: str, rows: dict[str, Interval], *lines: float) -> None:
    """One row a method, with its interval. Dashed ``lines`` mark targets."""
    names = list(rows)[::-1]
    means, widths = zip(*(rows[name] for name in names), strict=True)
    axes.errorbar(means, range(len(names)), xerr=widths, fmt="o", markersize=4, capsize=2)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title(title, loc="left", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    for line in lines:
        axes.axvline(line, color="grey", linestyle="--", linewidth=1)


def paired(report: Report, store: Store, problems: Sequence[str], methods: tuple[str, str], figure: str) -> None:
    """Add a table of the differences of a figure between two methods, over their common seeds."""
    rows = []
    for problem in problems:
        first, second = (store.read(problem, method) for method in methods)
        common = [s for s in first if s in second and figure in first[s] and figure in second[s]]
        if common and methods[0] != methods[1]:
            rows.append([problem, interval([first[s][figure] - second[s][figure] for s in common])])
    if rows:
        report.say(f"## {figure} of {methods[0]} minus {methods[1]}, on the same seeds")
        report.table(["problem", "difference"], rows)
