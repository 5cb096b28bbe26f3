"""What the options say of a picture: its mask, blur and scale, and the law of its noise."""

from __future__ import annotations

import argparse
import warnings
from functools import partial

from torch import Tensor

from ..errors import InputError
from ..images import masks
from ..images.pictures import load_image, load_mask
from ..measurement.likelihood import Gaussian, Likelihood, StudentT
from ..operators import Blur, Compose, GaussianBlur, Inpainting, MotionBlur, Operator, SuperResolution

_KERNEL_SIZE, _STD, _ANGLE, _DEGREES = 61, 3.0, 0.0, 2.0


def read_mask(options: argparse.Namespace) -> Tensor:
    """The mask of the option ``--mask``, 1 observed and 0 hidden, in the size of its file."""
    if options.invert_mask:
        if options.white:
            raise InputError("--invert-mask and --white are given: leave out --invert-mask")
        _warn("--invert-mask will go: --white fill takes white as the hole, and is the default now")
        return load_mask(options.mask, invert=True)
    if options.white is None:
        _warn(
            "white of the mask is painted, as in ComfyUI; in earlier versions it was known: --white known for such "
            "masks, --white fill for no notice"
        )
    return load_mask(options.mask, white=options.white or "fill")


def known_pixels(options: argparse.Namespace, height: int, width: int) -> Tensor | None:
    """The mask for a picture of that size; None if there is none.

    Raises:
        InputError: it is no mask, does not fit, or has no hole.
    """
    return None if options.mask is None else masks.fit_mask(read_mask(options), height, width)


def degradation(options: argparse.Namespace, mask: Tensor | None) -> Operator:
    """A: the blur, then the scale, then the mask that are given.

    Raises:
        InputError: none is given, or one has a value out of its range.
    """
    stages: list[Operator] = []
    blur = _blur(options)
    if blur is not None:
        stages.append(blur)
    if options.factor is not None:
        stages.append(SuperResolution(options.factor, options.kind))
    if mask is not None:
        stages.append(Inpainting(mask))
    if not stages:
        raise InputError("the degradation is missing: give --mask, --blur, --kernel or --factor")
    return stages[0] if len(stages) == 1 else Compose(*stages)


def likelihood(options: argparse.Namespace) -> Likelihood:
    """The law of the noise."""
    if options.likelihood == "gaussian":
        if options.degrees is not None:
            raise InputError("--degrees is a setting of --likelihood student-t: give both or none")
        return Gaussian()
    return StudentT(_DEGREES if options.degrees is None else options.degrees)


def _blur(options: argparse.Namespace) -> Blur | None:
    takes = {"gaussian": {"kernel_size", "std"}, "motion": {"kernel_size", "angle"}, None: set()}
    for name in {"kernel_size", "std", "angle"} - takes[options.blur]:
        if getattr(options, name) is not None:
            kinds = " or ".join(f"--blur {kind}" for kind, names in takes.items() if name in names)
            raise InputError(f"--{name.replace('_', '-')} is a setting of {kinds}: give both or none")
    if options.kernel is not None:
        if options.blur is not None:
            raise InputError("--kernel and --blur are given: leave out one")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a result would lose: depth and colours
            return Blur.of_picture(load_image(options.kernel))
    if options.blur is None:
        return None
    size = _KERNEL_SIZE if options.kernel_size is None else options.kernel_size
    if options.blur == "motion":
        return MotionBlur(size, _ANGLE if options.angle is None else options.angle)
    return GaussianBlur(size, _STD if options.std is None else options.std)


_warn = partial(warnings.warn, category=FutureWarning, stacklevel=1)
