"""Measurement operators, named as the mathematics."""

from .base import Operator
from .blur import Blur, GaussianBlur
from .compose import Compose
from .crop import Crop
from .grey import Grey
from .inpainting import Inpainting
from .linear import Linear
from .motion_blur import MotionBlur
from .super_resolution import SuperResolution

__all__ = [
    "Blur",
    "Compose",
    "Crop",
    "GaussianBlur",
    "Grey",
    "Inpainting",
    "Linear",
    "MotionBlur",
    "Operator",
    "SuperResolution",
]
