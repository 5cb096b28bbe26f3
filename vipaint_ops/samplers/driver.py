"""One signature for every sampler: a method writes its chain, the driver does the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior, DiffusionPrior
from ..diffusion.streams import NoiseStreams
from ..inference.batches import Request, sample_in_batches
from ..inference.linearised import require_gradients
from ..inference.progress import Callback
from ..inference.results import Drawn, SampleResult
from ..measurement.observation import Observation
from .config import SamplerConfig

Config = TypeVar("Config", bound=SamplerConfig)
Contravariant = TypeVar("Contravariant", bound=SamplerConfig, contravariant=True)
Chain = Callable[[CountedPrior, Observation, Config, NoiseStreams, Callback], Tensor | Drawn]
"""``chain(prior, observation, config, streams, callback)``: clean latents, one row a stream."""


class Sampler(Protocol[Contravariant]):
    """Samples of p(x | y) by one method."""

    def __call__(
        self,
        prior: DiffusionPrior,
        observation: Observation,
        num_samples: int,
        config: Contravariant | None = None,
        *,
        generator: torch.Generator,
        first: int = 0,
        noise: Tensor | None = None,
        callback: Callback | None = None,
    ) -> SampleResult:
        """Draw restorations of ``observation``.

        Args:
            num_samples: how many.
            config: settings of the method; its defaults if not given.
            generator: the source of all randomness.
            first: number of the first sample; with the same seed, sample k of a batch is ``first=k, num_samples=1``.
            noise: standard normal noise at the start of the chains, ``[num_samples, *latent_shape]``; drawn if not
                given.
            callback: called after every step.

        Raises:
            InputError: the method is not defined for the observation, or an argument is out of its range.
        """
        ...

    @staticmethod
    def check(observation: Observation) -> None:
        """Refuse an observation that the method is not defined for.

        Raises:
            InputError: see above.
        """
        ...


def sampler(
    config: type[Config],
    check: Callable[[Observation], None] = lambda observation: None,
    *,
    gradients: bool = True,
) -> Callable[[Chain[Config]], Sampler[Config]]:
    """Make a sampler of the chain of a method.

    Args:
        config: the class of its settings; the defaults are used where none are given.
        check: raises InputError for observations that the method is not defined for.
        gradients: whether the method needs gradients of a network.
    """

    def of(chain: Chain[Config]) -> Sampler[Config]:
        def sample(
            prior: DiffusionPrior,
            observation: Observation,
            num_samples: int,
            config: Config | None = None,
            *,
            generator: torch.Generator,
            first: int = 0,
            noise: Tensor | None = None,
            callback: Callback | None = None,
        ) -> SampleResult:
            check(observation)
            if gradients:
                require_gradients(observation)
            settings = config or default()

            def run(prior, observation, streams, report):
                return chain(prior, observation, settings, streams, report)

            request = Request(num_samples, settings.batch_size, first, noise, settings.population, settings.decoder)
            return sample_in_batches(prior, observation, run, request, generator=generator, callback=callback)

        sample.__doc__, sample.__name__, sample.__qualname__ = chain.__doc__, chain.__name__, chain.__qualname__
        sample.__module__ = chain.__module__
        sample.check = check  # type: ignore[attr-defined]
        return sample  # type: ignore[return-value]

    default = config
    return of


def gaussian_only(method: str) -> Callable[[Observation], None]:
    """The check of a method that takes noise as Gaussian."""
    return lambda observation: observation.require_gaussian(method)
