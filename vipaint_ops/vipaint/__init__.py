"""VIPaint: fit a hierarchical variational posterior, then refine draws from it."""

from .fit import FitConfig, fit_posterior
from .posterior import HierarchicalPosterior
from .refine import RefineConfig, sample_posterior

__all__ = ["FitConfig", "HierarchicalPosterior", "RefineConfig", "fit_posterior", "sample_posterior"]
