"""Held-out scenes seen through masks, blurs and coarse pixels, and what is asked of their restorations.

The generator draws true completions of what a mask leaves visible, so plausibility, diversity and the distance to the
posterior have an exact reference there.
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
"""What the autoencoder cannot reproduce (40 dB is 0.02 in [-1, 1]), behind masks; and noise added to measurements."""
COMPLETIONS = 64
"""True completions of a scene, to which samples are compared."""


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


MASKS = {
    "half": half_plane(64, 64, 0.0),
    "box": box(64, 64, 32),
    "random": random_pixels(64, 64, 0.1, generator=_seeded(0)),
    "strokes": brush_strokes(64, 64, 0.4, generator=_seeded(0)),
}
"""Right half, middle box, nine pixels in ten, and brush strokes over four tenths hidden."""
OPERATORS: dict[str, Operator] = {
    "Gaussian blur": operators.GaussianBlur(61, 3.0),
    "motion blur": operators.MotionBlur(31, 30.0),
    "bicubic x2": operators.SuperResolution(2),
    "bicubic x4": operators.SuperResolution(4),
}
TASKS = [*MASKS, *OPERATORS]


@torch.no_grad()
def autoencoded(pictures: Tensor) -> Tensor:
    """``pictures`` as the autoencoder makes them: the best that a latent prior could do."""
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
        """1 where pixels are known, ``[1, 1, 64, 64]``; none for a task without a hole."""
        return MASKS.get(self.task)

    @property
    def observation(self) -> Observation:
        """Clean pixels through a mask, noisy measurements through another operator."""
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
        """What the two tables below name, of ``samples`` ``[n, 3, 64, 64]``, where finite."""
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
