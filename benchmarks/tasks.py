"""Tasks on held-out scenes (masks, blurs, reduced resolution) and the figures of their restorations.

For masks, the scene generator draws true completions of the visible pixels. They are an exact reference for
plausibility, diversity and the distance to the posterior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from tools import scene_checker, scenes
from tools.train_prior import to_unit
from vipaint_ops import Observation, load_embedded_prior, operators
from vipaint_ops.evaluation import metrics
from vipaint_ops.evaluation.degrade import degrade
from vipaint_ops.images.masks import box, brush_strokes, composite, half_plane, random_pixels
from vipaint_ops.operators import Operator

HELD_OUT_SEED = 3
MASK_NOISE, NOISE = 0.02, 0.05
"""Noise levels in [-1, 1]: the autoencoder's error, assumed behind masks (40 dB is 0.02), and the noise added to other
measurements."""
COMPLETIONS = 64
"""Number of true completions of a scene, the reference of its samples."""


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


MASKS = {
    "half": half_plane(64, 64, 0.0),
    "box": box(64, 64, 32),
    "random": random_pixels(64, 64, 0.1, generator=_seeded(0)),
    "strokes": brush_strokes(64, 64, 0.4, generator=_seeded(0)),
}
"""Hidden pixels: the right half, a central box, 90 % at random, and brush strokes over 40 %."""
OPERATORS: dict[str, Operator] = {
    "Gaussian blur": operators.GaussianBlur(61, 3.0),
    "motion blur": operators.MotionBlur(31, 30.0),
    "bicubic x2": operators.SuperResolution(2),
    "bicubic x4": operators.SuperResolution(4),
}
TASKS = [*MASKS, *OPERATORS]


@torch.no_grad()
def autoencoded(pictures: Tensor) -> Tensor:
    """``pictures`` encoded and decoded: the upper limit of any latent prior."""
    prior = load_embedded_prior()
    return prior.decode(prior.encode(pictures))


@dataclass(frozen=True)
class Case:
    """One held-out scene in one task."""

    task: str
    scene: int

    @cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        return scenes.sample_scenes(self.scene + 1, HELD_OUT_SEED)

    @cached_property
    def truth(self) -> Tensor:
        """``[1, 3, 64, 64]``."""
        return to_unit(self._drawn[0][-1:])

    @property
    def mask(self) -> Tensor | None:
        """1 at known pixels, ``[1, 1, 64, 64]``; None for a task without a mask."""
        return MASKS.get(self.task)

    @property
    def observation(self) -> Observation:
        """Clean pixels for a mask, noisy measurements for any other operator."""
        if self.mask is not None:
            return Observation(self.mask * self.truth, operators.Inpainting(self.mask), MASK_NOISE)
        return degrade(self.truth, OPERATORS[self.task], NOISE, generator=_seeded(self.scene + 10**6))

    @lru_cache(64)  # noqa: B019 - a case is small and compares by value
    def completions(self, count: int, seed: int = HELD_OUT_SEED) -> Tensor:
        """True completions, ``[count, 3, 64, 64]``."""
        assert self.mask is not None
        visible = self.mask[0, 0].bool().numpy()
        return to_unit(scenes.render(scenes.sample_agreeing(self._drawn[1][-1:], visible, count, seed=seed)[0]))

    def figures(self, samples: Tensor) -> dict[str, float]:
        """The finite figures of ``samples`` ``[n, 3, 64, 64]``, with the names of the two tables below."""
        samples = samples.clamp(-1, 1)
        pixels = (samples.numpy() + 1) / 2
        figures = {
            "symmetry": float(scene_checker.symmetry_error(pixels).mean()),
            "psnr": metrics.psnr(samples.mean(0, keepdim=True), self.truth).item(),
            "residual": metrics.consistency(samples, self.observation).mean().item(),
            "diversity": metrics.diversity(samples, self.mask) if len(samples) > 1 else 0.0,
        }
        if self.mask is not None:
            figures |= self._of_a_hole(samples, pixels, self.mask)
        return {name: value for name, value in figures.items() if math.isfinite(value)}

    def _of_a_hole(self, samples: Tensor, pixels: np.ndarray, mask: Tensor) -> dict[str, float]:
        own = metrics.psnr(autoencoded(self.truth), self.truth, mask)
        true = self.completions(COMPLETIONS)
        completed = composite(samples, self.truth, mask)
        figures = {
            "completed": float(scene_checker.symmetry_error((completed.numpy() + 1) / 2).mean()),
            "below": (own - metrics.psnr(samples, self.truth, mask)).mean().item(),
            "distance": metrics.energy_distance(samples, true, mask),
        }
        if not mask[..., :32].all():
            return figures
        shown = scene_checker.count_suns((self.truth.numpy() + 1) / 2)[0, 0] > 0
        found = float((scene_checker.count_suns(pixels)[:, 1] > 0).mean())
        return figures | ({"second sun": found} if shown else {"sun in hole": found})


MASK_FIGURES = {
    "distance": "distance to true completions",
    "symmetry": "symmetry error",
    "completed": "with the known pixels put back",
    "below": "observed, dB below autoencoder",
    "diversity": "pairwise distance",
    "sun in hole": "sun hidden: in hole",
    "second sun": "sun shown: second one",
}
OPERATOR_FIGURES = {
    "psnr": "PSNR of the mean (dB)",
    "residual": "residual / noise",
    "diversity": "pairwise distance",
    "symmetry": "symmetry error",
}
