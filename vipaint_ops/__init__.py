"""VIPaint: sample the posterior of a picture given a degraded observation, with a diffusion prior.

Pure PyTorch; knows nothing of the host it runs in. Pictures are [batch, channels, height, width] in
[-1, 1]; time runs from 0 (clean) to 1 (noise).
"""

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
