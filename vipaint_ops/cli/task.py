"""A degraded picture, its parts for the model, and the time of each stage of a run."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError
from ..images.windows import Window, WindowConfig, crop, find_windows, whole_window
from ..inference.progress import Callback, Progress
from ..measurement.likelihood import Likelihood
from ..measurement.noise_level import model_level
from ..measurement.observation import Observation
from ..operators import Inpainting, Operator
from ..priors.diffusers import DiffusersPrior

NOT_FINITE = "the run diverged to NaN or infinite values: use --dtype float32, a larger --noise-std or more --steps"
_LEAST, _MOST = 0.001, 1.0
"""Range of an estimated noise level."""
_LARGER = 1.5
"""A picture with so many times the pixels that the model was trained for gets a notice."""


@dataclass
class Task:
    """A degraded picture.

    Attributes:
        picture: as given, ``[1, 3, height, width]`` in [-1, 1].
        operator: what it is seen through.
        likelihood: the law of its noise.
        mask: its known pixels, ``[1, 1, height, width]``, 1 observed and 0 hidden; None for all.
        truth: the complete picture, if given.
        seconds: time of each finished stage.
    """

    picture: Tensor
    operator: Operator
    likelihood: Likelihood
    mask: Tensor | None
    truth: Tensor | None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def pasted(self) -> Tensor | None:
        """The mask, if its known pixels are those of the restored picture."""
        return self.mask if isinstance(self.operator, Inpainting) else None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the restored picture."""
        return self.operator.picture_size((self.picture.shape[2], self.picture.shape[3]))

    def noise_std(self, prior: DiffusersPrior) -> float:
        """An estimate of the noise, with the error of the model's autoencoder."""
        with torch.no_grad():
            level = model_level(self.picture, lambda x: _autoencoded(prior, x), prior.picture_multiple, self.mask)
        return min(max(level, _LEAST), _MOST)

    def windows(self, prior: DiffusersPrior, cropped: bool) -> list[Window] | None:
        """Windows around the holes, in the size that the model was trained for; None for the whole picture."""
        trained = max(prior.latent_shape[1:]) * prior.picture_factor
        share = self.size[0] * self.size[1] / trained**2
        if cropped and self.pasted is not None:
            config = WindowConfig(size=trained, multiple=prior.picture_multiple)
            return [whole_window(self.pasted)] if share <= 1 else find_windows(self.pasted, config)
        if share > _LARGER:
            warnings.warn(
                f"the picture has {share:.1f} times the pixels of {trained}x{trained}, for which the model was trained"
                + ("" if self.pasted is None else ": --crop restores windows around its holes"),
                stacklevel=1,
            )
        return None

    def observations(self, windows: list[Window] | None, noise_std: float) -> list[Observation]:
        """The whole picture as an observation, or each window."""
        if windows is None or self.pasted is None:
            y = self.picture if self.mask is None else self.mask * self.picture
            return [Observation(y, self.operator, noise_std, self.likelihood)]
        parts = [crop(self.picture, self.pasted, window) for window in windows]
        return [Observation(part, Inpainting(known), noise_std, self.likelihood) for part, known in parts]

    @contextmanager
    def stage(self, name: str) -> Iterator[Callback]:
        """Time a stage, and show its progress with the loss terms. Yields the callback.

        Raises:
            InputError: a matrix with NaN or infinite values could not be factorised.
        """
        start = time.perf_counter()
        with tqdm(desc=name, unit="step", disable=None) as bar:

            def report(progress: Progress) -> None:
                bar.total = progress.total
                bar.set_postfix({key: f"{value:.4g}" for key, value in progress.terms.items()}, refresh=False)
                bar.update(progress.step - bar.n)

            try:
                yield report
            except torch.linalg.LinAlgError as error:
                raise InputError(NOT_FINITE) from error
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


def _autoencoded(prior: DiffusersPrior, picture: Tensor) -> Tensor:
    on_device = picture.to(prior.device, prior.dtype)
    return prior.decode(prior.encode(on_device)).to(picture)
