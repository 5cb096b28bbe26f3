"""Inpainting on the embedded prior: half, box and random masks on held-out scenes, against their true completions.

    python -m benchmarks.inpainting                      # 64 scenes, 8 samples each, every method at its defaults
    python -m benchmarks.inpainting --scenes 8 --masks half --methods VIPaint "VIPaint, 0 iterations" --budget 300

The generator draws true completions of what each mask leaves visible, so plausibility and diversity have an exact
reference. Every method sees the same scenes; results are kept per method, so a run can be continued.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.systems import METHODS, system
from tools import scene_checker, scenes
from tools.train_prior import to_unit
from vipaint_ops import Observation, load_embedded_prior, metrics, operators
from vipaint_ops.masks import box, half_plane, random_pixels
from vipaint_ops.prior import Evaluations

HELD_OUT_SEED = 3
NOISE_STD = 0.02
"""What the autoencoder cannot reproduce (40 dB is 0.02 in [-1, 1]); the pictures themselves are clean."""
MASKS = {
    "half": half_plane(64, 64, 0.0),
    "box": box(64, 64, 32),
    "random": random_pixels(64, 64, 0.1, generator=torch.Generator().manual_seed(0)),
}
"""Right half, middle box, and nine pixels in ten hidden."""


def judge(samples: Tensor, truth: Tensor, autoencoded: Tensor, mask: Tensor) -> dict[str, np.ndarray]:
    """Figures of one method: samples ``[scenes, n, 3, 64, 64]``; every array is one number a scene."""
    count = samples.shape[1]
    flat = samples.flatten(0, 1).clamp(-1, 1)
    seen = scene_checker.count_suns((flat.numpy() + 1) / 2).reshape(len(samples), count, 2)
    shown = scene_checker.count_suns((truth.numpy() + 1) / 2)
    left_visible = bool(mask[..., :32].all())
    own = metrics.psnr(autoencoded, truth, mask)
    observed = metrics.psnr(flat, truth.repeat_interleave(count, 0), mask).view(len(samples), count)
    return {
        "symmetry": scene_checker.symmetry_error((flat.numpy() + 1) / 2).reshape(len(samples), count).mean(1),
        "palette": scene_checker.palette_error((flat.numpy() + 1) / 2).reshape(len(samples), count).mean(1),
        "observed_db_below_autoencoder": (own[:, None] - observed).mean(1).numpy(),
        "diversity": np.array([metrics.diversity(s, mask) for s in samples]),
        "sun_in_hole": (seen[..., 1] > 0).mean(1) if left_visible else np.full(len(samples), np.nan),
        "sun_shown": (shown[:, 0] > 0) if left_visible else np.full(len(samples), np.nan),
    }


def run(method: str, budget: int | None, mask: Tensor, truth: Tensor, count: int) -> tuple[Tensor, dict[str, float]]:
    """Samples of every scene, ``[scenes, count, 3, 64, 64]``, and what they cost per sample."""
    prior = load_embedded_prior()
    observations = [Observation(mask * picture[None], operators.Inpainting(mask), NOISE_STD) for picture in truth]
    restore = system(method, budget, prior, observations[0])
    images, spent, start = [], Evaluations(), time.time()
    for index, observation in enumerate(tqdm(observations, desc=method)):
        sample, cost = restore(prior, observation, count, torch.Generator().manual_seed(index))
        images.append(sample)
        spent += cost
    total = len(truth) * count
    seconds = time.time() - start
    return torch.stack(images), {"evaluations": spent.denoiser / total, "seconds": seconds / total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--masks", nargs="*", default=list(MASKS), choices=list(MASKS))
    parser.add_argument("--budget", type=int, help="denoiser evaluations a sample, for every method but VIPaint")
    parser.add_argument("--work", type=Path, default=Path("build/inpainting"))
    arguments = parser.parse_args()
    images, u = scenes.sample_scenes(arguments.scenes, HELD_OUT_SEED)
    truth = to_unit(images)
    prior = load_embedded_prior()
    with torch.no_grad():
        autoencoded = prior.decode(prior.encode(truth))
    for name in arguments.masks:
        mask = MASKS[name]
        folder = arguments.work / f"{name}-{arguments.scenes}x{arguments.samples}-{arguments.budget or 'defaults'}"
        folder.mkdir(parents=True, exist_ok=True)
        visible = mask[0, 0].bool().numpy()
        if not (folder / "true completions.json").exists():
            completions = scenes.sample_agreeing(u, visible, arguments.samples, seed=HELD_OUT_SEED)
            drawn = to_unit(scenes.render(completions.reshape(-1, completions.shape[-1])))
            save(folder, "true completions", drawn.unflatten(0, completions.shape[:2]), {}, truth, autoencoded, mask)
        for method in arguments.methods:
            if not (folder / f"{method}.json").exists():
                samples, cost = run(method, arguments.budget, mask, truth, arguments.samples)
                save(folder, method, samples, cost, truth, autoencoded, mask)
        print(
            f"\n### {name} mask, {arguments.scenes} scenes, {arguments.samples} samples each\n\n{table(folder)}",
            flush=True,
        )


def save(folder: Path, method: str, samples: Tensor, cost, truth: Tensor, autoencoded: Tensor, mask: Tensor) -> None:
    figures = {k: np.asarray(v, dtype=float).tolist() for k, v in judge(samples, truth, autoencoded, mask).items()}
    torch.save(samples.half(), folder / f"{method}.pt")
    (folder / f"{method}.json").write_text(json.dumps({"figures": figures, "cost": cost}))


def table(folder: Path) -> str:
    """The Markdown table of every method that has been run."""
    lines = [
        "| method | symmetry error | sky palette error | observed, dB below autoencoder | pairwise distance | of true "
        "| sun hidden: in hole | sun shown: second one | evaluations/sample | s/sample |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    true_diversity = np.nanmean(json.loads((folder / "true completions.json").read_text())["figures"]["diversity"])
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        f = {k: np.array(v, dtype=float) for k, v in record["figures"].items()}
        shown = f["sun_shown"] == 1
        cells = [
            f"{f['symmetry'].mean():.4f} ± {1.96 * f['symmetry'].std() / len(shown) ** 0.5:.4f}",
            f"{f['palette'].mean():.3f}",
            f"{f['observed_db_below_autoencoder'].mean():.2f}",
            f"{np.nanmean(f['diversity']):.3f}",
            f"{np.nanmean(f['diversity']) / true_diversity:.2f}",
            f"{f['sun_in_hole'][~shown].mean():.2f}",
            f"{f['sun_in_hole'][shown].mean():.2f}",
            f"{record['cost'].get('evaluations', 0):.0f}",
            f"{record['cost'].get('seconds', 0):.2f}",
        ]
        lines.append(f"| {path.stem} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
