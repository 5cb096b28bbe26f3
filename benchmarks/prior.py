"""The embedded prior: autoencoder, unconditional samples, memorisation.

    python -m benchmarks.prior                # 500 samples, the figures of docs/record.md

Prints the autoencoder's PSNR on held-out scenes, and for unconditional samples their plausibility and their distance to
the nearest training scene. There are two references for memorisation. Reconstructions of held-out scenes have a similar
distance although the scenes are not in the training set. The distance to the nearest of as many unseen scenes is equal
to that to the training scenes if the prior has memorised none.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.report import interval
from benchmarks.tasks import autoencoded
from tools import scene_checker, scenes
from tools.train_prior import HELD_OUT_SEED, TRAIN_SCENES, TRAIN_SEED
from vipaint_ops import load_embedded_prior
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.diffusion.schedule import CLEAN, reverse_mean
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.evaluation import metrics
from vipaint_ops.evaluation.plots import contact_sheet
from vipaint_ops.inference.chain import even_times, pure_noise

UNSEEN_SEED = 10**6


@torch.no_grad()
def unconditional(prior, count: int, steps: int, eta: float, seed: int = 0) -> Tensor:
    """Decoded samples with steps of equal size in time: ``[count, 3, 64, 64]``.

    ``eta`` 1 is ancestral. A larger ``eta`` adds more noise, up to the noise of the level. In the limit of small steps
    the law is the same, and more noise corrects more of the errors of earlier steps (Karras et al. 2022, section 4).
    """
    counted, streams = CountedPrior(prior), NoiseStreams(seed, range(count))
    times = even_times(1.0, steps)
    levels = [prior.schedule.level(t) for t in times] + [CLEAN]
    z = pure_noise(counted, times[0], streams)
    for i, t in enumerate(times):
        mean, variance = reverse_mean(z, counted.denoise(z, t), levels[i + 1], levels[i], eta)
        z = mean + math.sqrt(min(variance, levels[i + 1].sigma ** 2)) * streams.normal(z)
    return prior.decode(z)


def nearest_distance(images: np.ndarray, seed: int, batch: int = 500) -> np.ndarray:
    """RMSE at 32 pixels to the nearest scene of ``seed``, for each image of ``[n, 3, 64, 64]`` in [0, 1].

    The number of scenes is that of the training set.
    """

    def shrink(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), 3, 32, 2, 32, 2).mean(axis=(3, 5)).reshape(len(x), -1).astype(np.float32)

    probe = shrink(images)
    best = np.full(len(probe), np.inf, dtype=np.float32)
    u = scenes.draw_uniforms(TRAIN_SCENES, np.random.default_rng(seed))
    for i in tqdm(range(0, len(u), batch), desc=f"scenes of seed {seed}"):
        seen = shrink(scenes.render(u[i : i + batch]))
        squared = (probe**2).sum(1)[:, None] + (seen**2).sum(1) - 2 * probe @ seen.T
        best = np.minimum(best, squared.min(1))
    return np.sqrt(np.maximum(best, 0) / probe.shape[1])


def row(name: str, images: np.ndarray, nearest: np.ndarray, unseen: np.ndarray) -> str:
    """A table row for ``images``, with the difference between the distances to training and to unseen scenes."""
    excess = interval((nearest - unseen).tolist())
    found = scene_checker.check(images)
    suns = found["suns_left"] + found["suns_right"]
    return (
        f"| {name} | {found['symmetry_error'].mean():.4f} | {found['edge_agreement'].mean():.4f} "
        f"| {(found['horizon_mismatch'] > 1).mean():.2f} | {found['palette_error'].mean():.3f} "
        f"| {(suns == 1).mean():.2f} | {(suns > 1).mean():.2f} "
        f"| {nearest.mean():.3f} | {np.percentile(nearest, 5):.3f} | {excess.mean:.4f} ± {excess.half_width:.4f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--eta", type=float, default=1.5, help="noise of a step; 1 is ancestral, 0 DDIM (default 1.5)")
    parser.add_argument("--sheet", help="also write a sheet of 40 samples to this PNG")
    arguments = parser.parse_args()
    prior = load_embedded_prior()
    truth = scenes.sample_scenes(arguments.samples, HELD_OUT_SEED)[0]
    held_out = torch.from_numpy(truth) * 2 - 1
    reconstructed = torch.cat([autoencoded(x) for x in held_out.split(50)])
    psnr = metrics.psnr(reconstructed.clamp(-1, 1), held_out)
    print(f"autoencoder: {psnr.mean():.2f} dB mean, {psnr.min():.2f} dB worst of {len(psnr)} held-out scenes")
    steps, eta = arguments.steps, arguments.eta
    samples = torch.cat([unconditional(prior, 50, steps, eta, s) for s in range(arguments.samples // 50)])
    diverged = (~samples.isfinite() | (samples.abs() > 1.5)).flatten(1).any(1)
    print(f"{len(samples)} unconditional samples, {steps} steps, eta {eta:g}: {int(diverged.sum())} diverged")
    if arguments.sheet:
        sheet = contact_sheet([("", s) for s in samples[:40].clamp(-1, 1)], columns=8, scale=2)
        Image.fromarray(sheet).save(arguments.sheet)
    groups = {"held-out scenes": held_out, "their reconstructions": reconstructed, "samples": samples}
    heads = ["symmetry error", "edge", "horizons differ > 1 px", "sky palette", "one sun", "more"]
    heads += ["nearest training scene", "5 %", "minus nearest unseen scene"]
    print("\n| | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 1) + "|")
    pictures = [(images.clamp(-1, 1).numpy() + 1) / 2 for images in groups.values()]
    ends = np.cumsum([len(images) for images in pictures])[:-1]
    nearest, unseen = (np.split(nearest_distance(np.concatenate(pictures), s), ends) for s in (TRAIN_SEED, UNSEEN_SEED))
    for figures in zip(groups, pictures, nearest, unseen, strict=True):
        print(row(*figures))


if __name__ == "__main__":
    main()
