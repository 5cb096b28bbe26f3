"""Samplers of the posterior, one file each, one signature."""

from .blended import BlendedConfig, blended
from .dps import DPSConfig, dps
from .kalman import KalmanConfig, kalman

__all__ = ["BlendedConfig", "DPSConfig", "KalmanConfig", "blended", "dps", "kalman"]
