"""Problems with an exact posterior."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from vipaint_ops import NoiseSchedule, Observation, operators
from vipaint_ops.priors.analytic import GaussianMixturePrior

DOUBLE = torch.float64
NOISE_STD = 0.05
SCHEDULES = {
    "variance-preserving": NoiseSchedule.scaled_linear(0.0015, 0.0195),
    "rectified flow": NoiseSchedule.rectified_flow(),
}
Problem = tuple[GaussianMixturePrior, Observation, GaussianMixturePrior]
"""A prior, an observation of a draw of it, and the exact posterior."""


def power_law_prior(schedule: NoiseSchedule, side: int = 16, exponent: float = 2.5, std: float = 0.5):
    """An image-like Gaussian prior on ``[1, side, side]``: power-law spectrum, periodic, pixel std ``std``."""
    frequency = torch.fft.fftfreq(side, dtype=DOUBLE) * side
    spectrum = (1 + frequency[:, None] ** 2 + frequency[None] ** 2) ** (-exponent / 2)
    kernel = torch.fft.ifft2(spectrum).real
    i = torch.arange(side)
    rows = (i[:, None, None, None] - i[None, None, :, None]) % side
    columns = (i[None, :, None, None] - i[None, None, None, :]) % side
    covariance = std**2 * (kernel / kernel[0, 0])[rows, columns].reshape(side**2, side**2)
    covariance += 1e-4 * torch.eye(side**2, dtype=DOUBLE)
    one = torch.ones(1, dtype=DOUBLE)
    return GaussianMixturePrior(one, torch.zeros(1, 1, side, side, dtype=DOUBLE), covariance[None], schedule)


def modes_prior(schedule: NoiseSchedule, count: int = 4) -> GaussianMixturePrior:
    """An image-like mixture of ``count`` components: means of std 0.5, and a power-law covariance of std 0.25."""
    pictures = power_law_prior(schedule).sample(count, torch.Generator().manual_seed(0))
    around = power_law_prior(schedule, std=0.25).covariances.expand(count, -1, -1)
    return GaussianMixturePrior(torch.ones(count, dtype=DOUBLE), pictures, around, schedule)


def image_problem(prior: GaussianMixturePrior, operator: operators.Operator, seed: int) -> Problem:
    """A draw of the prior, measured through ``operator`` with noise :data:`NOISE_STD`."""
    generator = torch.Generator().manual_seed(seed)
    clean = operator(prior.sample(1, generator))
    observation = Observation(
        clean + NOISE_STD * torch.randn(clean.shape, generator=generator, dtype=DOUBLE), operator, NOISE_STD
    )
    return prior, observation, prior.posterior(observation)


def inpainting(prior: GaussianMixturePrior, mask_name: str, noise_std: float, generator: torch.Generator):
    """The observation of a decoded draw of the prior through a half or box mask."""
    side = prior.latent_shape[-1]
    mask = torch.ones(1, 1, side, side, dtype=DOUBLE)
    if mask_name == "half":
        mask[..., side // 2 :] = 0
    else:
        mask[..., side // 4 : -side // 4, side // 4 : -side // 4] = 0
    x = prior.decode(prior.sample(1, generator))
    y = mask * (x + noise_std * torch.randn(x.shape, generator=generator, dtype=DOUBLE))
    return Observation(y, operators.Inpainting(mask), noise_std)


def inpainting_problem(prior: GaussianMixturePrior, mask_name: str, noise_std: float, generator: torch.Generator):
    """:func:`inpainting` of a linear prior, and its exact posterior."""
    observation = inpainting(prior, mask_name, noise_std, generator)
    return observation, prior.posterior(observation)


def mixture_prior(
    dimension: int, generator: torch.Generator, schedule: NoiseSchedule | None = None
) -> GaussianMixturePrior:
    """The 25-component mixture of MCGdiff (Cardoso et al. 2023, section 4) with uniform normalised weights."""
    grid = torch.arange(-2, 3, dtype=DOUBLE) * 8
    pairs = torch.cartesian_prod(grid, grid)
    means = pairs.repeat(1, dimension // 2)
    betas = torch.linspace(1e-4, 0.02, 999, dtype=DOUBLE)
    weights = torch.rand(25, generator=generator, dtype=DOUBLE)
    covariances = torch.eye(dimension, dtype=DOUBLE).expand(25, -1, -1)
    return GaussianMixturePrior(weights, means, covariances, schedule or NoiseSchedule.vp(betas))


def mixture_problem(dimension: int, measurements: int, seed: int, schedule: NoiseSchedule | None = None) -> Problem:
    """One problem of the protocol; without ``schedule``, on the schedule of the paper."""
    generator = torch.Generator().manual_seed(seed)
    prior = mixture_prior(dimension, generator, schedule)
    matrix: Tensor = torch.randn(measurements, dimension, generator=generator, dtype=DOUBLE)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.rand(measurements, generator=generator, dtype=DOUBLE).sort(descending=True).values
    matrix = u @ values.diag() @ v
    noise_std = (torch.rand((), generator=generator, dtype=DOUBLE) * values.max()).item()
    x = prior.sample(1, generator)
    noise = noise_std * torch.randn(1, measurements, generator=generator, dtype=DOUBLE)
    observation = Observation(x @ matrix.T + noise, operators.Linear(matrix), noise_std)
    return prior, observation, prior.posterior(observation)


@cache
def _image_prior(kind: str, schedule: str) -> GaussianMixturePrior:
    return {"Gaussian": power_law_prior, "four modes": modes_prior}[kind](SCHEDULES[schedule])


def _image(kind: str, schedule: str, view: str) -> Callable[[int], Problem]:
    def make(seed: int) -> Problem:
        prior = _image_prior(kind, schedule)
        if view in ("half", "box"):
            return prior, *inpainting_problem(prior, view, NOISE_STD, torch.Generator().manual_seed(seed))
        operator = {"blur": operators.GaussianBlur(9, 1.5), "x2": operators.SuperResolution(2)}[view]
        return image_problem(prior, operator, seed)

    return make


def _mixture(dimension: int, measurements: int, schedule: str | None = None) -> Callable[[int], Problem]:
    return lambda seed: mixture_problem(dimension, measurements, seed, SCHEDULES[schedule] if schedule else None)


class LayoutsPrior(GaussianMixturePrior):
    """Pictures of ``count`` layouts on ``[1, 16, 16]``, through a known decoder that is not linear.

    Layouts differ everywhere in the right half, and in four pixels of the left half beside it, by 0.4 each, as a code.
    Pixels have a deviation of 0.1 about their layout. The decoder is x = z + 0.3 sin 2z, pixel by pixel.
    """

    def __init__(self, count: int, schedule: NoiseSchedule, side: int = 16):
        generator = torch.Generator().manual_seed(0)
        pictures = power_law_prior(schedule, side).sample(count, generator)
        pictures[..., : side // 2] = pictures[:1, ..., : side // 2]
        code = torch.randint(2, (count, 4), generator=generator, dtype=DOUBLE)
        pictures[:, 0, 2::4, side // 2 - 1] += 0.4 * code
        covariances = (0.1**2 * torch.eye(side**2, dtype=DOUBLE)).expand(count, -1, -1)
        super().__init__(torch.ones(count, dtype=DOUBLE), pictures, covariances, schedule)
        self.identity = f"{count} layouts"

    def decode(self, z0: Tensor) -> Tensor:
        return z0 + 0.3 * (2 * z0).sin()

    def encode(self, x: Tensor) -> Tensor:
        z0 = x.clone()
        for _ in range(50):
            z0 = z0 - (self.decode(z0) - x) / (1 + 0.6 * (2 * z0).cos()).clamp(min=0.5)
        return z0

    def layout_weights(self, observation: Observation) -> Tensor:
        """p(layout | y), ``[count]``, exact: pixels are independent within a layout, so each is an integral."""
        seen = observation.observed.flatten()
        means, y = self.means.flatten(1)[:, seen], observation.y.flatten()[seen]
        points = 0.1 * torch.linspace(-6, 6, 601, dtype=DOUBLE)
        z = means[..., None] + points
        log_density = -0.5 * (points / 0.1) ** 2 - 0.5 * ((y[:, None] - self.decode(z)) / observation.noise_std) ** 2
        return log_density.logsumexp(-1).sum(-1).softmax(0)

    def restorations(self, observation: Observation, count: int, generator: torch.Generator) -> Tensor:
        """Exact samples of the hidden pixels; the known ones are those of their layout, not of y."""
        layouts = torch.multinomial(self.layout_weights(observation), count, True, generator=generator)
        noise = torch.randn(count, *self.latent_shape, generator=generator, dtype=DOUBLE)
        return self.decode(self.means[layouts] + 0.1 * noise)


def layouts_problem(count: int, seed: int, schedule: NoiseSchedule) -> tuple[LayoutsPrior, Observation]:
    """A picture of the prior with its right half hidden."""
    prior = LayoutsPrior(count, schedule)
    return prior, inpainting(prior, "half", NOISE_STD, torch.Generator().manual_seed(seed))


FLOW = "rectified flow"
MIXTURES = {f"mixture ({d}, {m})": _mixture(d, m) for d in (8, 80, 800) for m in (1, 2, 4)} | {
    f"mixture ({d}, {m}), flow": _mixture(d, m, FLOW) for d, m in ((8, 1), (80, 2))
}
IMAGES = {
    f"{kind}, {view}": _image(kind, "variance-preserving", view)
    for kind, views in (("Gaussian", ("half", "box", "blur", "x2")), ("four modes", ("half", "box")))
    for view in views
} | {f"Gaussian, {view}, flow": _image("Gaussian", FLOW, view) for view in ("half", "box")}
