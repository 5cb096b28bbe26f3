"""VIPaint: fit a hierarchical variational posterior, then refine draws from it."""

from .config import FitConfig, RefineConfig
from .fit import fit_posterior
from .posterior import HierarchicalPosterior
from .refine import sample_posterior

__all__ = ["FitConfig", "HierarchicalPosterior", "RefineConfig", "fit_posterior", "sample_posterior"]
