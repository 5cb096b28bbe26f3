"""CoPaint's mismatch with the observed pixels, over its steps, on the embedded prior.

    python -m benchmarks.copaint_mismatch              # 2 held-out scenes, 2 samples each
    python -m benchmarks.copaint_mismatch --seeds 1    # a quick look

The masks are half, box and random of benchmarks.tasks. The mismatch is the root mean square difference between the
predicted image and the observed pixels, where black is -1 and white is 1. The autoencoder's
error is in the report too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.report import Report, arguments
from benchmarks.systems import METHODS
from benchmarks.tasks import HELD_OUT_SEED, MASK_NOISE
from benchmarks.tasks import MASKS as ALL_MASKS
from tools import scenes
from tools.train_prior import to_unit
from vipaint_ops import Observation, load_embedded_prior, operators
from vipaint_ops.inference.progress import Progress
from vipaint_ops.samplers import CoPaintConfig, copaint

SAMPLES = 2
MASKS = {name: ALL_MASKS[name] for name in ("half", "box", "random")}
NAMES = ["CoPaint", "CoPaint-Fast", "CoPaint-TT"]


def curve(config: CoPaintConfig, mask: Tensor, scene: Tensor, seed: int) -> list[float]:
    """The mismatch after each step, averaged over the samples."""
    found: list[float] = []

    def watch(progress: Progress) -> None:
        found.append(progress.terms["mismatch"])

    observation = Observation(mask * scene, operators.Inpainting(mask), MASK_NOISE)
    copaint(PRIOR, observation, SAMPLES, config, generator=torch.Generator().manual_seed(seed), callback=watch)
    return found


PRIOR = load_embedded_prior()


def main() -> None:
    options = arguments(__doc__, 0, 2, NAMES)
    title = f"CoPaint's mismatch over its steps, 64-pixel scenes, {SAMPLES} samples each"
    report = Report("copaint_mismatch", title, options.seeds, options.out)
    truth = to_unit(scenes.sample_scenes(max(options.seeds) + 1, HELD_OUT_SEED)[0])
    with torch.no_grad():
        left = PRIOR.decode(PRIOR.encode(truth)) - truth
    results: dict[str, dict[str, list[float]]] = {}
    rows = []
    progress = tqdm(total=len(MASKS) * len(options.methods) * len(options.seeds))
    for (name, mask), axes in zip(MASKS.items(), report.panels(len(MASKS)), strict=True):
        floor = ((mask * left).square().sum() / (mask.sum() * 3 * len(truth))).sqrt().item()
        results[name] = {}
        for method in options.methods:
            runs = []
            for seed in options.seeds:
                runs.append(curve(METHODS[method].config, mask, truth[seed : seed + 1], seed))
                progress.update()
            mean = torch.tensor(runs).mean(0).tolist()
            results[name][method] = mean
            axes.semilogy([(k + 1) / len(mean) for k in range(len(mean))], mean, label=method, linewidth=1)
            rows.append((f"{name}, {method}", len(mean), f"{mean[0]:.3f}", f"{mean[-1]:.4f}", f"{floor:.4f}"))
        axes.axhline(floor, color="grey", linestyle="--", linewidth=1, label="autoencoder")
        axes.set_title(f"{name} mask: mismatch", loc="left", fontsize=9)
        axes.set_xlabel("share of the steps", fontsize=8)
        axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
    progress.close()
    report.table(("mask, method", "steps", "first", "last", "autoencoder"), rows)
    report.write(results)


if __name__ == "__main__":
    main()
