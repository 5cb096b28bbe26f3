"""VIPaint: sample the posterior of a picture given a degraded observation, with a diffusion prior.

Pure PyTorch; knows nothing of the host it runs in. Pictures are [batch, channels, height, width] in
[-1, 1]; time runs from 0 (clean) to 1 (noise).

The names are imported when first used: the command can then answer a signal while PyTorch is loading.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import operators, samplers
    from .diffusion.prior import DiffusionPrior, Evaluations
    from .diffusion.schedule import NoiseSchedule
    from .errors import InputError
    from .inference.progress import Progress
    from .inference.results import SampleResult
    from .measurement.observation import Observation
    from .presets import PRESETS
    from .priors import analytic
    from .priors.embedded import load_embedded_prior
    from .restoration import METHODS, restore
    from .vipaint import FitConfig, HierarchicalPosterior, RefineConfig, fit_posterior, sample_posterior

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "PRESETS",
    "DiffusionPrior",
    "Evaluations",
    "FitConfig",
    "HierarchicalPosterior",
    "InputError",
    "NoiseSchedule",
    "Observation",
    "Progress",
    "RefineConfig",
    "SampleResult",
    "analytic",
    "fit_posterior",
    "load_embedded_prior",
    "operators",
    "restore",
    "sample_posterior",
    "samplers",
]

_HOMES = {
    "METHODS": ".restoration",
    "PRESETS": ".presets",
    "DiffusionPrior": ".diffusion.prior",
    "Evaluations": ".diffusion.prior",
    "FitConfig": ".vipaint",
    "HierarchicalPosterior": ".vipaint",
    "InputError": ".errors",
    "NoiseSchedule": ".diffusion.schedule",
    "Observation": ".measurement.observation",
    "Progress": ".inference.progress",
    "RefineConfig": ".vipaint",
    "SampleResult": ".inference.results",
    "analytic": ".priors.analytic",
    "fit_posterior": ".vipaint",
    "load_embedded_prior": ".priors.embedded",
    "operators": ".operators",
    "restore": ".restoration",
    "sample_posterior": ".vipaint",
    "samplers": ".samplers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    module = import_module(home, __name__)
    value = module if home.endswith(f".{name}") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
