"""A masked picture, and the time of each stage of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError
from ..inference.progress import Callback, Progress
from ..measurement.observation import Observation
from ..operators import Inpainting
from ..priors.diffusers import DiffusersPrior
from ..restoration import for_picture

NOT_FINITE = "the run diverged to NaN or infinite values: use --dtype float32, a larger --noise-std or more --steps"


@dataclass
class Task:
    """A masked picture.

    Attributes:
        picture: ``[1, 3, height, width]`` in [-1, 1].
        mask: ``[1, 1, height, width]``, 1 observed and 0 hidden.
        truth: the complete picture, of the same shape, if given.
        seconds: time of each finished stage.
    """

    picture: Tensor
    mask: Tensor
    truth: Tensor | None
    seconds: dict[str, float] = field(default_factory=dict)

    def observe(self, prior: DiffusersPrior, noise_std: float) -> tuple[DiffusersPrior, Observation]:
        """The model and the observation, for the picture padded to a size that the model takes."""
        observation = Observation(self.mask * self.picture, Inpainting(self.mask), noise_std)
        return for_picture(prior, observation)

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
        self.seconds[name] = round(time.perf_counter() - start, 3)
