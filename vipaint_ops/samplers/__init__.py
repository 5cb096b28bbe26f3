"""Samplers of the posterior, one file each, one signature."""

from .blended import BlendedConfig, blended
from .copaint import CoPaintConfig, copaint
from .ddnm import DDNMConfig, ddnm
from .ding import DInGConfig, ding
from .dps import DPSConfig, dps
from .kalman import KalmanConfig, kalman
from .lanpaint import LanPaintConfig, lanpaint
from .latino import LATINOConfig, latino
from .pigdm import PiGDMConfig, pigdm
from .psld import PSLDConfig, psld
from .red_diff import RedDiffConfig, RedDiffVConfig, red_diff, red_diff_v
from .repaint import RePaintConfig, repaint
from .resample import ReSampleConfig, resample

__all__ = [
    "BlendedConfig",
    "CoPaintConfig",
    "DDNMConfig",
    "DInGConfig",
    "DPSConfig",
    "KalmanConfig",
    "LATINOConfig",
    "LanPaintConfig",
    "PSLDConfig",
    "PiGDMConfig",
    "RePaintConfig",
    "ReSampleConfig",
    "RedDiffConfig",
    "RedDiffVConfig",
    "blended",
    "copaint",
    "ddnm",
    "ding",
    "dps",
    "kalman",
    "lanpaint",
    "latino",
    "pigdm",
    "psld",
    "red_diff",
    "red_diff_v",
    "repaint",
    "resample",
]
