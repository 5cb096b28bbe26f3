"""What a restoration costs on full-size models, without running it: TFLOP, and peak memory.

    python -m benchmarks.full_size                  # about 15 minutes on two cores; a second run takes seconds
    python -m benchmarks.full_size --fresh          # measure everything again
    python -m benchmarks.full_size --device cuda    # one row of the real networks, random weights: seconds and memory

The cost of one row comes from the networks on the meta device (benchmarks/architectures.py). The number of rows comes
from the library's own count for four samples of a hole with their fit. Methods with a number of rows that depends on
the picture are counted on the embedded prior (half a picture hidden), the others on a normal law that costs nothing.
Counts and row costs are kept in the JSON file. A count is repeated when the settings of its method change; after
other changes of the library use --fresh.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import astuple
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.architectures import ARCHITECTURES, DTYPE, Architecture, Network, autoencoder, row, weight_bytes
from benchmarks.counts import ON_EMBEDDED, ON_NORMAL, WHOLE, at_full_size, count_rows, gradients, hole, rows_together
from benchmarks.report import RESULTS
from benchmarks.systems import Sampler, VIPaint
from nodes.host.tiles import Axis, Layout
from vipaint_ops import PRESETS, Evaluations, Observation, load_embedded_prior
from vipaint_ops.evaluation.cost import (
    PLAIN,
    PLAIN_STEPS,
    SAMPLES,
    Costs,
    Row,
    Rows,
    forward_memory,
    peak_memory,
    tflop,
)


class Setting(NamedTuple):
    """How the host runs the networks: blocks of the denoiser recomputed or not, and the form of the decoder.

    The decoder is "whole"; "checkpointed", with recomputed blocks; "by row", the same one row at a time, recomputed as
    a whole too; "tiled", the same in four tiles of nodes/host/tiles.py.
    """

    checkpointed: bool
    decoder: str


SETTINGS = {
    "everything fits": Setting(False, "whole"),
    "decoder by row": Setting(False, "by row"),
    "checkpointed": Setting(True, "checkpointed"),
    "checkpointed, decoder by row": Setting(True, "by row"),
    "checkpointed, decoder in tiles": Setting(True, "tiled"),
}
"""From much memory to little: the order in which the host tries them."""


CARD = 11e9
"""Bytes that are free on a card of 12 GB."""


def four_tiles(side: int) -> Layout:
    """The layout of four tiles for a latent of ``side`` cells."""
    return Layout(Axis(side, 2), Axis(side, 2))


def costs(architecture: Architecture, setting: Setting, cache: Cache) -> Costs:
    """Costs of a row of each network of an architecture under a setting."""
    networks = architecture.networks()
    decoder, count = networks["decoder"], 1
    if setting.decoder == "tiled":
        layout = four_tiles(decoder.shape[-1])
        (decoder, _), count = autoencoder(layout.rows.side, decoder.shape[1]), layout.count
    row = cache.row(decoder, setting.decoder != "whole")
    together = setting.decoder in ("whole", "checkpointed")
    denoiser, encoder = cache.row(networks["denoiser"], setting.checkpointed), cache.row(networks["encoder"], False)
    return Costs(denoiser, row if together else row.tiled(count), encoder)


def fitting(architecture: Architecture, taken: frozenset[str], memory: float, cache: Cache) -> Setting:
    """The first setting in which the gradients of one sample fit into ``memory`` bytes, or the last one."""
    for setting in SETTINGS.values():
        cost = costs(architecture, setting, cache)
        if peak_memory(cache.weights(architecture), cost, 1, architecture.guided, taken) <= memory:
            return setting
    return setting


class Cache:
    """Figures in a JSON file by name, each with the settings that it was measured with."""

    def __init__(self, path: Path, fresh: bool = False):
        self._path = path
        self._entries: dict[str, Any] = json.loads(path.read_text()) if path.exists() and not fresh else {}

    def get(self, name: str, settings: str, measure: Callable[[], Any]) -> Any:
        """The figures of ``name``, measured and written if they are new or were made with other settings."""
        entry = self._entries.get(name)
        if entry is None or entry["settings"] != settings:
            began = time.time()
            entry = {"settings": settings, "date": date.today().isoformat(), "figures": measure()}
            self._entries[name] = entry
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._entries, indent=1) + "\n")
            print(f"measured {name} in {time.time() - began:.0f} s", flush=True)
        return entry["figures"]

    def row(self, network: Network, checkpointed: bool) -> Row:
        """The cost of a row of ``network``."""
        name = f"{network.name}, {network.shape}{', checkpointed' if checkpointed else ''}"
        settings = repr((network.config, network.conditions, [block.__name__ for block in network.blocks]))
        return Row(*self.get(name, settings, lambda: row(network, checkpointed)))

    def rows(self, name: str, method: VIPaint | Sampler) -> Rows:
        """The rows of a method."""
        settings = repr(method.config if isinstance(method, Sampler) else method)
        found = self.get(name, settings, lambda: [astuple(part) for part in count_rows(method, *hole(name))])
        return Rows(*(Evaluations(*part) for part in found))

    def weights(self, architecture: Architecture) -> int:
        """Bytes of denoiser and autoencoder."""
        networks = [architecture.denoiser, architecture.decoder]
        settings = repr([network.config for network in networks])
        return self.get(f"{architecture.name}, weights", settings, lambda: weight_bytes(networks))


def on_sd15(method: VIPaint | Sampler, observation: Observation) -> Callable[[Evaluations], float]:
    """TFLOP on SD1.5 at 512 pixels, where everything fits, of rows of ``method`` counted on the embedded prior."""
    cost = costs(ARCHITECTURES[0], SETTINGS["everything fits"], Cache(RESULTS / "full_size.json"))
    cells = math.prod(load_embedded_prior().latent_shape[-2:])
    if isinstance(method, Sampler):
        decoders = [method.config.decoder]
    else:
        decoders = [method.fit.decoder, method.refine.decoder_for(observation)]

    def paid(spent: Evaluations) -> float:
        for decoder in decoders:
            spent = at_full_size(spent, decoder, cells)
        return tflop(spent, cost, ARCHITECTURES[0].guided)

    return paid


def table(header: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown; the first column is text, the others are figures."""
    ruled = [header, ["---"] + ["---:"] * (len(header) - 1), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled)


def row_table(cache: Cache) -> str:
    """Costs of one row."""
    header = ["network", "forward, TFLOP", "backward", "checkpointed backward", "graph, GB", "checkpointed graph"]
    header += ["peak", "checkpointed peak", "without gradient"]
    lines = []
    for architecture in ARCHITECTURES:
        for name, network in architecture.networks().items():
            whole = cache.row(network, False)
            less = whole if name == "encoder" else cache.row(network, True)
            operations = [f"{value / 1e12:.3g}" for value in (whole.forward, whole.backward, less.backward)]
            sizes = (whole.kept, less.kept, whole.peak, less.peak, whole.working)
            lines.append([f"{architecture.name} {name}", *operations, *(f"{size / 1e9:.2f}" for size in sizes)])
    return table(header, lines)


def counted_rows(cache: Cache) -> dict[str, Rows]:
    """Rows of plain generation and of every method."""
    methods = {**ON_EMBEDDED, **ON_NORMAL}
    found = {f"plain, {PLAIN_STEPS} steps": PLAIN}
    return found | {name: cache.rows(name, method) for name, method in methods.items()}


def count_table(rows: dict[str, Rows]) -> str:
    """Rows of every method, forward / backward, and those of the condition alone."""

    def cells(rows: Evaluations, share: int) -> list[str]:
        both = [
            f"{getattr(rows, f'{name}_forward') / share:.0f} / {getattr(rows, f'{name}_backward') / share:.0f}"
            for name in Costs._fields
        ]
        return [both[0], f"{rows.condition_forward / share:.0f}", *both[1:]]

    names = ("denoiser", "condition alone", "decoder", "encoder")
    header = ["method", *(f"{part}: {name}" for part in ("fit", "a sample") for name in names), "together"]
    methods = {**ON_EMBEDDED, **ON_NORMAL}
    lines = []
    for name, found in rows.items():
        batch = str(rows_together(methods[name])) if found.gradients else "none"
        lines.append([name, *cells(found.fit, 1), *cells(found.samples, SAMPLES), batch])
    return table(header, lines)


def cost_table(rows: dict[str, Rows], columns: dict[str, tuple[Architecture, Setting | float]], cache: Cache) -> str:
    """TFLOP of every method, and divided by those of plain generation.

    A column has a setting, or the memory in bytes for which each method takes its cheapest one.
    """
    methods = {**ON_EMBEDDED, **ON_NORMAL}
    lines = []
    for name, counted in rows.items():
        line, taken = [name], gradients(methods[name]) if name in methods else frozenset[str]()
        for architecture, given in columns.values():
            setting = given if isinstance(given, Setting) else fitting(architecture, taken, given, cache)
            cost = costs(architecture, setting, cache)
            paid, plain = (tflop(r.total, cost, architecture.guided) for r in (counted, PLAIN))
            line += [f"{float(f'{paid:.3g}'):,.0f}", f"{paid / plain:.1f}"]
        lines.append(line)
    return table(["method", *(cell for head in columns for cell in (f"{head}, TFLOP", "÷ plain"))], lines)


def memory_table(cache: Cache, taken: frozenset[str], batches: tuple[int, ...] = (1, 2, 4, 8)) -> str:
    """Peak memory of these gradients by the number of samples together, and of four samples without gradients."""
    lines = []
    for architecture in ARCHITECTURES:
        weights, guided = cache.weights(architecture), architecture.guided
        for name, setting in SETTINGS.items():
            cost = costs(architecture, setting, cache)
            sizes = [peak_memory(weights, cost, rows, guided, taken) for rows in batches]
            sizes.append(forward_memory(weights, cost, SAMPLES, guided))
            lines.append([f"{architecture.name}, {name}", *(f"{size / 1e9:.1f}" for size in (weights, *sizes))])
    return table(["peak, GB", "weights", *map(str, batches), f"{SAMPLES} without gradients"], lines)


def on_card(cache: Cache) -> str:
    """Seconds and peak memory of one row of the real networks, beside the prediction."""
    header = ["network", "forward, s", "backward, s", "TFLOP/s", "peak, GB", "predicted"]
    lines = []
    for architecture in ARCHITECTURES:
        for name, network in architecture.networks().items():
            predicted = cache.row(network, False)
            module = network.build("cuda")
            function, x = network.function(module, "cuda"), torch.randn(network.shape, dtype=DTYPE, device="cuda")
            weights = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
            differentiate(function, x)  # the first run chooses kernels
            forward, backward, peak = differentiate(function, x)
            speed = (predicted.forward + predicted.backward) / (forward + backward) / 1e12
            figures = [f"{forward:.3f}", f"{backward:.3f}", f"{speed:.0f}", f"{peak / 1e9:.2f}"]
            lines.append([f"{architecture.name} {name}", *figures, f"{(weights + predicted.peak) / 1e9:.2f}"])
            print(" | ".join(lines[-1]), flush=True)
            del module, function
            torch.cuda.empty_cache()
    return table(header, lines)


def differentiate(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[float, float, int]:
    """Seconds of a forward pass and of a backward pass on the card, and its peak memory in bytes."""
    x = x.detach().requires_grad_()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    times = [time.perf_counter()]
    y = function(x)
    torch.cuda.synchronize()
    times.append(time.perf_counter())
    torch.autograd.grad(y, x, torch.ones_like(y))
    torch.cuda.synchronize()
    times.append(time.perf_counter())
    return times[1] - times[0], times[2] - times[1], torch.cuda.max_memory_allocated()


def report(cache: Cache) -> str:
    """The tables of the prediction."""
    fits = SETTINGS["everything fits"]
    rows = counted_rows(cache)
    sd15, sdxl = ARCHITECTURES[:2]
    usual = {"SD1.5 512": (sd15, fits), f"SDXL 1024 in {CARD / 1e9:.0f} GB": (sdxl, CARD)}
    parts = [
        f"# What a restoration costs at full size\n\n{SAMPLES} samples with their fit, {date.today()}. Computed, not "
        "run. Plain is a generation of as many pictures.",
        "## Cost\n\nSD1.5: everything fits. SDXL: the cheapest of the settings below in which one sample fits.",
        cost_table(rows, usual, cache),
    ]
    for name, setting in SETTINGS.items():
        parts += [f"## Cost: {name}", cost_table(rows, {a.name: (a, setting) for a in ARCHITECTURES}, cache)]
    parts += [
        "## Peak memory by samples together\n\nDenoiser, autoencoder and their graphs; text encoders are not "
        "counted. The batches of the methods are in the table of rows.\n\n"
        "Methods with the gradient of the whole prediction, through decoder and denoiser. RED-diff has no graph of the "
        "denoiser.",
        memory_table(cache, WHOLE),
        "The presets *balanced* and *quality*: the gradient of the decoder alone.",
        memory_table(cache, PRESETS["balanced"].refine.differentiates),
        "## Rows\n\nForward / backward. *Together* is the largest batch with gradients.",
        count_table(rows),
        "## One row\n\nPeaks are of forward and backward pass, without weights.",
        row_table(cache),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("meta", "cuda"), default="meta", help="cuda: run one row of each network")
    parser.add_argument("--fresh", action="store_true", help="measure again what the JSON file has")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables and the figures")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "--device cuda: torch finds no CUDA card on this machine\n")
    cache = Cache(options.out / "full_size.json", options.fresh)
    if options.device == "cuda":
        print("\n" + on_card(cache))
        return
    text = report(cache)
    print("\n" + text)
    (options.out / "full_size.md").write_text(text)


if __name__ == "__main__":
    main()
