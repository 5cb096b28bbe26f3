"""Measurement operators, named as the mathematics."""

from .base import Operator
from .inpainting import Inpainting
from .linear import Linear

__all__ = ["Inpainting", "Linear", "Operator"]
